"""A GPT in plain PyTorch, as one would write it in an afternoon: what the benchmarks hold ours against.

The block and the settings of nanoGPT (Karpathy 2022): LayerNorm before each sublayer, one matrix for query, key and
value, GELU, learned positions, a head tied to the embedding, no biases; logits whole, cross-entropy by torch.
"""

import torch.nn.functional as F
from torch import nn


class PlainBlock(nn.Module):
    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        b, n, width = x.shape
        heads = (part.view(b, n, self.n_heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGPT(nn.Module):
    def __init__(self, vocab_size, context, depth, n_heads, width):
        super().__init__()
        self.words, self.places = nn.Embedding(vocab_size, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(PlainBlock(width, n_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                is_output = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5 if is_output else 0.02)

    def forward(self, ids, targets):
        """Mean cross-entropy of targets (b, n) after ids (b, n)."""
        x = self.words(ids) + self.places.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.words.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
