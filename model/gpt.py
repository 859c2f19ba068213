"""The decoder: embedding, blocks of attention and SwiGLU with RMSNorm before each, final norm. Llama-shaped."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import Attention, KVCache, document_bias
from model.config import ModelConfig
from model.device import product_dtype
from model.positions import rotation_table

# Dimensions: B batch, T time, C model width, F hidden width of SwiGLU, V vocabulary, P half a head


class Block(nn.Module):
    """x + attention(norm(x)), then x + SwiGLU(norm(x)) (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.n_embd, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.n_embd, config.norm_eps)
        self.gate_up = nn.Linear(config.n_embd, 2 * config.ffn_dim, bias=False)
        self.down = nn.Linear(config.ffn_dim, config.n_embd, bias=False)

    def forward(
        self,
        x_BTC: Tensor,
        table_2TP: Tensor,
        bias_BTS: Tensor | None,
        cache: KVCache | None = None,
    ) -> Tensor:
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), table_2TP, bias_BTS, cache)
        gate_BTF, up_BTF = self.gate_up(self.ffn_norm(x_BTC)).chunk(2, dim=-1)
        return x_BTC + self.down(F.silu(gate_BTF) * up_BTF)


class GPT(nn.Module):
    """A language model over token ids; weights are float32 and drawn from `seed` alone."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = nn.RMSNorm(config.n_embd, config.norm_eps)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        table_2TP = rotation_table(config.seq_len, config.head_dim, config.rope_theta)
        self.register_buffer("table_2TP", table_2TP, persistent=False)
        self.table_2TP: Tensor
        self.run_block: Callable[..., Tensor] = nn.Module.__call__
        """What runs a block where gradients are wanted; a compiled form may take its place."""
        self._draw_weights(torch.Generator().manual_seed(seed))

    def _draw_weights(self, generator: torch.Generator) -> None:
        """Normal with deviation 0.02, as GPT-2; what a block adds begins at 0 (arXiv:1901.09321), so depth does not matter."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith(("attention.out.weight", "down.weight")):
                    parameter.zero_()
                elif parameter.dim() == 2:
                    parameter.normal_(std=0.02, generator=generator)

    @property
    def output_VC(self) -> Tensor:
        """The output matrix: the embedding, if tied."""
        return self.embedding.weight if self.config.tie_embeddings else self.head.weight

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, C) whose product with `output_VC` is the logits of each next token.

        `documents_BT` numbers the document of each token; None is one document a row.
        """
        if documents_BT is None:
            documents_BT = torch.zeros_like(tokens_BT)
        bias_BTS = document_bias(documents_BT, product_dtype(self.output_VC))
        x_BTC = self.embedding(tokens_BT)
        table_2TP = self.table_2TP[:, : tokens_BT.size(1)]
        run_block = self.run_block if torch.is_grad_enabled() else nn.Module.__call__
        for block in self.blocks:
            x_BTC = run_block(block, x_BTC, table_2TP, bias_BTS)
        return self.final_norm(x_BTC)

    def new_caches(self, batch_size: int) -> list[KVCache]:
        """Empty caches for `extend`, one a block."""
        return [KVCache(self.config, batch_size, self.embedding.weight) for _ in self.blocks]

    def extend(self, tokens_BT: Tensor, caches: list[KVCache]) -> Tensor:
        """Logits (B, V) of the token after `tokens_BT`, which follow what is in the caches, all of one document.

        Equal to the last row of a forward pass over everything. At most seq_len tokens fit.
        """
        begin, num_new = caches[0].length, tokens_BT.size(1)
        table_2TP = self.table_2TP[:, begin : begin + num_new]
        bias_BTS = None
        if num_new > 1:  # one token may see everything before it
            one_document = tokens_BT.new_zeros(1, begin + num_new)
            bias_BTS = document_bias(one_document, product_dtype(self.output_VC))[:, begin:]
        x_BTC = self.embedding(tokens_BT)
        for block, cache in zip(self.blocks, caches, strict=True):
            x_BTC = block(x_BTC, table_2TP, bias_BTS, cache)
        return F.linear(self.final_norm(x_BTC[:, -1]), self.output_VC)
