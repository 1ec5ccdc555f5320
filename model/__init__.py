"""The PyTorch reference of Fun-Audio-Chat and of its detokenizer; `config`, `components` and `noise` need no torch."""
