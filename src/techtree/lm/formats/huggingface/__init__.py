"""A model's folder as Hugging Face's tools write and read it.

`config.json`, `generation_config.json`, the tokenizer's files, and `model.safetensors` or several such files
with an index; `transformers.AutoModelForCausalLM.from_pretrained(folder)` reads it. Reading is strict: a file
that holds anything more, less or else than the model needs is refused, and so is an option that this program
does not have.
"""

from techtree.lm.formats.huggingface.loading import load_model, load_pretrained
from techtree.lm.formats.huggingface.saving import save_pretrained

__all__ = ["load_model", "load_pretrained", "save_pretrained"]
