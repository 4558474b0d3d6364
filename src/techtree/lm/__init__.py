"""Tower 2, the production language model: data, model, formats, training, inference, evaluation."""
