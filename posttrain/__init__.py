"""Jobs that train: supervised fine-tuning today."""
