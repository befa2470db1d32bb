"""Our tasks for lm-eval: `lm_eval --include_path evals/lm_eval_tasks --tasks lengthwise_tlg ...`."""
