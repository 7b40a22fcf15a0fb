"""What becomes of the variables of TGI's launcher (Text Generation Inference), and of its arguments of those names."""

from __future__ import annotations

from bloomery.settings.migration_row import differs, refused, same

_TOKENS = "write OPTION_MAX_TOKENS: prompt and new tokens together"
_BATCHES = "no effect: SERVING_BATCH_SIZE and SERVING_MAX_BATCH_DELAY join requests"
_QUANTISED = "remove it; OPTION_DTYPE=int8 holds the weights of an unquantised checkpoint in int8"
_LIMIT = "no effect: option.max_tokens bounds a request"
_ROPE = "remove it: positions are scaled as the checkpoint's config.json says"
_ADDRESS = "write SERVING_INFERENCE_ADDRESS=http://HOST:PORT, or serve --host HOST --port PORT"

TGI = (
    refused("MODEL_ID", "write HF_MODEL_ID"),
    refused("REVISION", "write HF_REVISION"),
    refused("NUM_SHARD", "write TENSOR_PARALLEL_DEGREE (SM_NUM_GPUS is read too)"),
    refused("SHARDED", "write TENSOR_PARALLEL_DEGREE=max for all GPUs", "true"),
    same("SHARDED", "one device is the default", "false"),
    refused("QUANTIZE", "write HF_MODEL_QUANTIZE=bitsandbytes, or OPTION_DTYPE=int8", "bitsandbytes|eetq"),
    refused("QUANTIZE", _QUANTISED),
    refused("DTYPE", "write OPTION_DTYPE=fp16", "float16"),
    refused("DTYPE", "write OPTION_DTYPE=bf16", "bfloat16"),
    refused("DTYPE", "write OPTION_DTYPE"),
    refused("KV_CACHE_DTYPE", "remove it: keys and values have the model's own type"),
    refused("TRUST_REMOTE_CODE", "write HF_MODEL_TRUST_REMOTE_CODE=true", "true|1"),
    same("TRUST_REMOTE_CODE", "a checkpoint's code is never run unasked"),
    differs(
        "MAX_CONCURRENT_REQUESTS", "the length of the queue (job_queue_size): the requests being answered come on top"
    ),
    refused("MAX_INPUT_LENGTH", _TOKENS),
    refused("MAX_INPUT_TOKENS", _TOKENS),
    refused("MAX_TOTAL_TOKENS", _TOKENS),
    differs("MAX_BATCH_TOTAL_TOKENS", _BATCHES),
    differs("MAX_BATCH_PREFILL_TOKENS", "reaches a handler of your own; no effect with the built-in ones"),
    differs("MAX_BATCH_SIZE", "for a rolling batch of your own handler; otherwise SERVING_BATCH_SIZE"),
    differs("WAITING_SERVED_RATIO", _BATCHES),
    differs("MAX_WAITING_TOKENS", _BATCHES),
    differs("MAX_CLIENT_BATCH_SIZE", "no effect: a request may carry a list of prompts of any length"),
    differs("MAX_BEST_OF", _LIMIT),
    differs("MAX_STOP_SEQUENCES", _LIMIT),
    differs("MAX_TOP_N_TOKENS", _LIMIT),
    refused("PAYLOAD_LIMIT", "write SERVING_MAX_REQUEST_SIZE (bytes)"),
    differs("VALIDATION_WORKERS", "no effect: rank 0 tokenises"),
    differs("CUDA_GRAPHS", "no effect: no CUDA graph is captured"),
    differs("ENABLE_CUDA_GRAPHS", "no effect: no CUDA graph is captured"),
    refused("SPECULATE", "remove it: there is no speculative decoding", r"(?!0$).+"),
    same("SPECULATE", "nothing is speculated"),
    refused("ROPE_SCALING", _ROPE),
    refused("ROPE_FACTOR", _ROPE),
    refused("HOSTNAME", _ADDRESS, r"\d+\.\d+\.\d+\.\d+|::.*|localhost", "an address"),
    differs("HOSTNAME", "a container's own name; the server listens where SERVING_INFERENCE_ADDRESS says"),
    refused("PORT", _ADDRESS),
    differs("PROMETHEUS_PORT", "no effect: /metrics is on the inference address"),
    differs("SHARD_UDS_PATH", "no effect: each worker group has a private directory"),
    differs("MASTER_ADDR", "no effect: the ranks of a group meet on this machine"),
    differs("MASTER_PORT", "no effect: each worker group reserves a free port"),
    differs(
        "HUGGINGFACE_HUB_CACHE", "no effect: checkpoints are fetched below the directory for temporary files (TMPDIR)"
    ),
    differs(
        "WEIGHTS_CACHE_OVERRIDE", "no effect: checkpoints are fetched below the directory for temporary files (TMPDIR)"
    ),
    differs(
        "DISABLE_CUSTOM_KERNELS", "option.kernel_inject=false (OPTION_KERNEL_INJECT) does without DeepSpeed's layers"
    ),
    refused("CUDA_MEMORY_FRACTION", "remove it: a group takes what its model and requests need", r"(?!1(\.0+)?$).+"),
    same("CUDA_MEMORY_FRACTION", "all of the memory"),
    differs("JSON_OUTPUT", "no effect: the log is text"),
    differs("OTLP_ENDPOINT", "no effect: no traces are sent; /metrics has the figures"),
    differs("OTLP_SERVICE_NAME", "no effect: no traces are sent; /metrics has the figures"),
    refused("CORS_ALLOW_ORIGIN", "write SERVING_CORS_ALLOWED_ORIGIN"),
    refused("API_KEY", "put a proxy that asks for the key before the server; it listens on the loopback by default"),
    refused("WATERMARK_GAMMA", "remove it: answers carry no watermark"),
    refused("WATERMARK_DELTA", "remove it: answers carry no watermark"),
    refused("NGROK", "remove it: no tunnel is opened", "true|1"),
    refused("TOKENIZER_CONFIG_PATH", "write OPTION_CHAT_TEMPLATE for another chat template"),
    differs("DISABLE_GRAMMAR_SUPPORT", "no effect: there are no grammars"),
    refused(
        "LORA_ADAPTERS",
        "merge the adapter into its model (peft: merge_and_unload), or serve it with a handler of your own",
    ),
    differs("MESSAGES_API_ENABLED", "no effect: /v1/chat/completions is always there"),
    differs("USAGE_STATS", "no effect: no statistics are sent"),
    differs("PREFIX_CACHING", "no effect: each prompt is computed whole"),
    differs("ATTENTION", "no effect: attention is the engine's own"),
    same("HUGGING_FACE_HUB_TOKEN", "read by the hub's client; HF_TOKEN is its newer name"),
    same("HF_TOKEN", "a secret: it reaches the worker processes and is never printed"),
)
