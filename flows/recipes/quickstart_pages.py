"""Pages written for the quick-start corpus: essays that should be kept, and pages that some stage should catch.

Used by `flows.recipes.quickstart_web`, which puts them into the frames of invented sites.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ESSAYS = Path(__file__).with_name("quickstart_essays.txt")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page before it is put into a frame."""

    url: str
    title: str
    paragraphs: tuple[str, ...]
    site: str = "meadow"
    lang: str = "en"
    note: str = ""
    """Small print under the text: where it is from, under which licence."""


def essays() -> Iterator[Page]:
    title, paragraphs = "", []
    for block in [*ESSAYS.read_text("utf-8").strip().split("\n\n"), "End"]:
        text = " ".join(block.split())
        if text.endswith("."):
            paragraphs.append(text)
            continue
        if title:
            yield Page(
                url=f"http://meadow.example.org/{slug(title)}",
                title=title,
                paragraphs=tuple(paragraphs),
            )
        title, paragraphs = text, []


def slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def spam(rng: random.Random) -> Iterator[Page]:
    keywords = (
        "cheap",
        "flights",
        "best",
        "price",
        "buy",
        "online",
        "deal",
        "casino",
        "bonus",
        "free",
        "loan",
        "watches",
    )
    for number in range(8):
        stuffed = tuple(" ".join(rng.choices(keywords, k=60)) for _ in range(5))
        yield Page(
            url=f"http://deals.example.com/{number}",
            title="Best price online",
            paragraphs=stuffed,
            site="deals",
        )
    for number in range(5):
        line = (
            f"Click here to win offer number {number} today and tell all of your friends about it."
        )
        url = f"http://deals.example.com/win/{number}"
        yield Page(url=url, title="You are a winner", paragraphs=(line,) * 40, site="deals")
    for number in range(3):
        words = _LOREM.split()
        rng.shuffle(words)
        lorem = tuple(f"Lorem ipsum {' '.join(words[i : i + 12])}." for i in range(0, 48, 12))
        url = f"http://draft.example.com/{number}"
        yield Page(url=url, title="Untitled page", paragraphs=lorem, site="draft")


_LOREM = (
    "dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua "
    "enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat duis aute "
    "irure in reprehenderit voluptate velit esse cillum eu fugiat nulla pariatur excepteur sint occaecat cupidatat "
    "non proident sunt culpa qui officia deserunt mollit anim id est laborum"
)


def insults() -> Iterator[Page]:
    """Insults of a kind that the toxicity model has to find; no slurs, nobody in particular."""
    comments = (
        "You are a complete idiot and everything you write is stupid garbage. Nobody wants to read this crap, so "
        "shut up, you pathetic moron, and go back to the hole you crawled out of. What a dumb, worthless loser.",
        "Shut the hell up, you ignorant fool. You are too stupid to understand one damn word of this article and you "
        "still open your big mouth. Everybody here is sick of you, you disgusting piece of trash.",
        "What kind of moron wrote this bullshit? The author is a liar and an idiot, and the fools who believe him are "
        "even dumber. Screw you and your stupid little page. I hope you choke on it, you pathetic clown.",
        "This woman is a dumb bitch and her husband is an ass. They are both disgusting, ugly losers, and the whole "
        "damn town would be better off if these idiots just got lost. Go to hell, both of you.",
        "You suck. Your team sucks, your coach is a worthless drunk, and your fans are stupid fat pigs. Losers like "
        "you should be kicked out of the league. Kiss my ass, you miserable crybabies.",
        "Only an idiot would defend those parasites. They are filthy, lazy scum and they should all be thrown out. "
        "If you feel sorry for such vermin you are a traitor and a moron, and you deserve what is coming to you.",
    )
    for number, insult in enumerate(comments):
        # With an answer, for the page has to be long enough to reach the toxicity stage at all.
        answer = comments[(number + 1) % len(comments)]
        url = f"http://forum.example.org/thread/{number + 1}"
        title = f"Comment {number + 1}"
        yield Page(url=url, title=title, paragraphs=(insult, answer), site="forum")


def private_pages() -> Iterator[Page]:
    """Contact pages with values from the ranges that are set aside for documentation and tests."""
    contact = (
        "Questions go to Ada at {mail}, who answers in the evening. If the water is off, call {phone} and let it ring, "
        "because the shed is at the far end of the garden. The gate computer has the address {address}. The deposit "
        "was paid with the test card {card}, and somebody left this line on the notice board: {secret}"
    )
    values = (
        ("ada@example.com", "202-555-0143", "198.51.100.23", "4111 1111 1111 1111", "aws_key = AKIAIOSFODNN7EXAMPLE"),
        ("plots@example.org", "+44 1632 960983", "203.0.113.77", "5555 5555 5555 4444", "password=hunter2-example"),
        ("ada.b@example.net", "(202) 555-0188", "8.8.8.8", "3782 822463 10005", "token: ghp_" + "0123456789abcdef" * 2),
        ("gate+north@example.com", "+1 202 555 0107", "2001:db8::8a2e:370:7334", "6011-1111-1111-1117",
         "secret = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    )  # fmt: skip
    for number, (value, plot) in enumerate(zip(values, _PLOTS, strict=True)):
        fields = dict(zip(("mail", "phone", "address", "card", "secret"), value, strict=True))
        url = f"http://garden.example.org/contact/{number + 1}"
        title = f"Garden society, plot {number + 7}"
        yield Page(
            url=url, title=title, paragraphs=(*plot, contact.format(**fields)), site="garden"
        )


_PLOTS = (
    (
        "Plot seven is free. It lies beside the railway, gets sun until four, and has two old plum trees that still "
        "bear well in most years. The last owner left a greenhouse with seven good panes and one of cardboard.",
        "The trains are frequent but they are small ones, and after a week nobody hears them. What one does hear are "
        "the blackbirds, who know exactly when the plums are ripe and begin on them an hour before everybody else.",
    ),
    (
        "Plot eight is wet, and nothing but rhubarb and willow has ever been happy there. Whoever takes it may dig a "
        "pond, and the neighbours on both sides have promised to help with spades if there is cake.",
        "A map from the last century shows a spring at this place with a stone basin around it. Three of the stones "
        "have been found under the compost heap, so the fourth cannot be far away, unless the church took it.",
    ),
    (
        "Plot nine was a playground once. The soil is full of marbles, and children come to look for them after rain, "
        "which the new owner should know before planting anything that does not like to be stepped on.",
        "On the other hand the children bring news, carry water for a biscuit, and chase away the pigeons. The best "
        "beans of last summer were grown here by two sisters who had never held a rake in their lives.",
    ),
    (
        "Plot ten has the best soil and the worst view, because the wall of the bus depot stands along its whole "
        "length. Warmth from the bricks ripens figs here, and the drivers like to be given some.",
        "In exchange they have painted the wall white as far up as a ladder reaches, and one of them, who once learned "
        "the trade, prunes the grape vine each February without being asked and without taking money for it.",
    ),
)


def thin_pages() -> Iterator[Page]:
    """Pages with next to nothing on them but the frame."""
    texts = (
        "Please enable JavaScript to view this page.",
        "Page not found. Go back to the start page.",
        "Loading ...",
        "Sign in to continue reading.",
        "function load() { var items = []; for (var i = 0; i < 10; i++) { items.push(i); } return items; }",
        "Home | Shop | Cart | Terms | Privacy | Cookies | Imprint | Help | Login | Register",
        "No results. Try another word.",
        "This domain may be for sale.",
    )
    for number, text in enumerate(texts):
        yield Page(
            url=f"http://empty.example.com/{number}",
            title="Welcome",
            paragraphs=(text,),
            site="empty",
        )
