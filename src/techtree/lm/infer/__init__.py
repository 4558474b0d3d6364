"""From a trained model and the text around a cursor to what stands between."""
