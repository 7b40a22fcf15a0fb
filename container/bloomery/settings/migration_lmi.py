"""What becomes of the settings of DJLServing and its LMI images: one row per key, and per value where that matters.

Keys that are not here and that this server reads mean the same; settings.migration adds them from their own tables.
"""

from __future__ import annotations

from bloomery.settings.engine import ELSEWHERE
from bloomery.settings.migration_row import differs, refused, same

_HERE = "engine=DeepSpeed with the same checkpoint"
_ROLLING = "remove the line; batch_size and max_batch_delay join requests"
_QUANTISED = "option.dtype=int8 holds the weights of an unquantised checkpoint in int8"
_MEMORY = "no effect: memory for keys and values is taken as requests need it"
_SPECULATION = "remove it: there is no speculative decoding"
_BATCHES = "no effect: what a batch may hold is batch_size and option.max_tokens"
_BUILDING = "no effect: nothing is compiled for a shape before it is served"

MODEL = (
    same("engine", "DeepSpeed, MPI and Python, in any case", "DeepSpeed|MPI|Python"),
    refused("engine", f"another engine: use {_HERE}"),
    same("option.model_id", "fetched before the handler is called, which finds a directory", "s3://.*", "`s3://…`"),
    same("option.model_id", "a hub id or a directory"),
    same("option.s3url", "the older name of option.model_id; both in one source are refused"),
    same(
        "option.entryPoint",
        "the built-in handlers",
        r"djl_python\.(deepspeed|huggingface)",
        "`djl_python.deepspeed`, `djl_python.huggingface`",
    ),
    refused(
        "option.entryPoint",
        f"another system's handler: remove the line, or use {_HERE}",
        r"djl_python\..*",
        "another `djl_python.…`",
    ),
    refused("option.entryPoint", "code is not downloaded: put the file into the model directory", r"\w+://.*", "a URL"),
    same("option.entryPoint", "a file of the model directory, or a module"),
    same("option.rolling_batch", "requests are answered in static batches", "disable|false"),
    differs(
        "option.rolling_batch",
        "with a handler of your own: DJLServing's rolling-batch protocol; the built-in ones answer in static batches, "
        "which batch_size joins, and in a rolling batch's shape (option.answer_format=object)",
        "auto|deepspeed|scheduler",
    ),
    refused(
        "option.rolling_batch", f"another system: {_ROLLING}", "|".join(ELSEWHERE), "another system, such as `vllm`"
    ),
    differs("option.rolling_batch", "a kind of your own handler's: DJLServing's rolling-batch protocol"),
    differs("option.max_rolling_batch_size", "with a rolling batch of your own handler; otherwise batch_size"),
    differs("option.max_rolling_batch_prefill_tokens", "reaches your own handler; no effect with the built-in ones"),
    differs("option.tensor_parallel_degree", "the same; where there is no GPU, max means the cores", "max"),
    same("option.tensor_parallel_degree", "devices that a model is split over"),
    refused(
        "option.pipeline_parallel_degree",
        "remove it and split layers: option.tensor_parallel_degree",
        r"[2-9]|\d\d+",
        "above 1",
    ),
    same("option.pipeline_parallel_degree", "one stage is what there is"),
    differs(
        "option.dtype", "auto is as the checkpoint says; on CPUs fp16 is computed in fp32", "auto|fp16|float16|half"
    ),
    same("option.dtype", "int8: weights only", "fp32|float32|bf16|bfloat16|int8"),
    refused("option.dtype", "write fp32, fp16, bf16, int8 or auto"),
    differs("option.data_type", "the older name of option.dtype"),
    same("option.trust_remote_code", "off unless set to true; code/model.py never runs a checkpoint's code"),
    differs("option.predict_timeout", "counts from the moment the handler starts, not from the request's arrival"),
    differs("option.model_loading_timeout", "the default is 1800 s (DJLServing: 240)"),
    differs("option.async_mode", "the same protocol; the built-in handlers answer without it"),
    differs("option.mpi_mode", "engine=Python means MPI; no mpirun is needed"),
    differs("option.env", "the same; in SageMaker's secure mode a model's own file may not set it"),
    differs("option.parallel_loading", "no effect: worker groups load side by side"),
    differs("option.use_passive_workers", "no effect: every rank of engine MPI and DeepSpeed gets every request"),
    differs("option.enable_venv", "no effect: requirements.txt goes into a directory of the model's own in any case"),
    refused("option.output_formatter", "use json, jsonlines, sse or none", "3p.*", "`3p`, `3p_stream`"),
    differs("option.output_formatter", "how streams are framed; option.answer_format is the shape of answers"),
    differs("option.tgi_compat", "answers and streams as TGI's (option.answer_format=tgi)"),
    same("option.chat_template", "Jinja text, or the path of a file"),
    refused(
        "option.enable_lora",
        "merge the adapter into its model (peft: merge_and_unload); a handler of your own may register adapters",
        "true",
    ),
    same("option.enable_lora", "off"),
    differs(
        "option.quantize", "served as option.dtype=int8: weights in 8 bits", "bitsandbytes|bitsandbytes8|dynamic_int8"
    ),
    same("option.quantize", "as the checkpoint is", "disable|none|false"),
    refused("option.quantize", f"remove it; {_QUANTISED}"),
    refused("option.quantization", f"remove it; {_QUANTISED}"),
    differs("option.load_in_8bit", "served as option.dtype=int8: weights in 8 bits", "true"),
    refused("option.load_in_4bit", f"remove it; {_QUANTISED}", "true"),
    same("option.load_in_8bit", "off"),
    same("option.load_in_4bit", "off"),
    same("option.load_format", "safetensors before .bin, in whatever the checkpoint has", "auto"),
    differs(
        "option.load_format",
        "each rank reads its share of the weights straight into memory, without another library",
        "stream|runai_streamer",
    ),
    differs(
        "option.load_format",
        "no effect: safetensors before .bin, in whatever the checkpoint has",
        "safetensors|pt|npcache|mistral|bitsandbytes|fastsafetensors",
    ),
    refused("option.load_format", "write auto or stream"),
    refused("option.smoothquant_alpha", f"remove it; {_QUANTISED}"),
)

VARIABLES = (
    same("SAGEMAKER_BIND_TO_PORT", "the port to listen on"),
    same("SAGEMAKER_MAX_PAYLOAD_IN_MB", "max_request_size, in megabytes"),
    same("SAGEMAKER_SECURITY_CONTROLS", "what a model may not bring along"),
    same("SAGEMAKER_SECURE_MODE", "whether the security controls are in force"),
    same("SAGEMAKER_UNTRUSTED_CHANNELS", "directories that the security controls look into"),
    same("MODEL_SERVER_HOME", "conf/config.properties is read below it"),
    same("DJL_VENV_DIR", "below it lie the directories with the packages of models' requirements"),
    differs(
        "DJL_OFFLINE", "requirements are installed without an index; HF_HUB_OFFLINE=1 keeps the hub's client at home"
    ),
)

WORKERS = (
    differs("minWorkers", "per device, as there; tensor parallel models have one group per set of GPUs"),
    differs("maxWorkers", "the default is minWorkers; on CPUs DJLServing starts one per core"),
    differs(
        "retry_threshold",
        "failures in a row without an answer before the model counts as failed; a lost group is "
        "restarted by itself, so the endpoint does not wedge",
    ),
    differs("job_queue_size", "the same; a full queue's 503 (or throttle_error_http_code) has Retry-After"),
    differs("batch_size", "the same; a lone request does not wait for max_batch_delay when the model is idle"),
    differs("max_batch_delay", "the default is 100 ms, as from 0.22.1 on; a lone request does not wait for it"),
    differs("chunked_read_timeout", "the default is 120 s, as from 0.31 on; the stream ends with an error record"),
    differs("max_idle_time", "no effect: groups come and go by management calls only"),
    differs("log_request_metric", "no effect: /metrics is always there"),
    differs("metrics_aggregation", "no effect: /metrics is always there"),
    differs("required_memory_mb", "no effect: memory is not estimated before a model is loaded"),
    differs("reserved_memory_mb", "no effect: memory is not estimated before a model is loaded"),
    differs("gpu.required_memory_mb", "no effect: memory is not estimated before a model is loaded"),
    differs("gpu.reserved_memory_mb", "no effect: memory is not estimated before a model is loaded"),
)

OTHER_ENGINES = (
    refused("option.max_model_len", "write option.max_tokens: prompt and new tokens together"),
    refused("option.max_input_len", "write option.max_tokens: prompt and new tokens together"),
    refused("option.max_output_len", "write option.max_tokens: prompt and new tokens together"),
    differs("option.gpu_memory_utilization", _MEMORY),
    differs("option.kv_cache_free_gpu_mem_fraction", _MEMORY),
    differs("option.kv_cache_dtype", _MEMORY),
    differs("option.block_size", _MEMORY),
    differs("option.swap_space", _MEMORY),
    differs("option.tokens_per_block", _MEMORY),
    differs("option.enable_prefix_caching", "no effect: each prompt is computed whole"),
    differs("option.enable_kv_cache_reuse", "no effect: each prompt is computed whole"),
    differs("option.enable_chunked_prefill", "no effect: each prompt is computed whole"),
    differs("option.paged_attention", "no effect"),
    differs("option.enforce_eager", "no effect: no CUDA graph is captured"),
    differs("option.enable_cuda_graph", "no effect: no CUDA graph is captured"),
    differs("option.disable_custom_all_reduce", "no effect: option.allreduce chooses between ranks on CPUs"),
    differs("option.disable_sliding_window", "no effect: attention is as the checkpoint says"),
    differs("option.disable_flash_attn", "no effect"),
    differs("option.tokenizer_mode", "no effect: the checkpoint's own tokenizer"),
    differs("option.max_num_batched_tokens", _BATCHES),
    differs("option.max_num_seqs", _BATCHES),
    differs("option.max_num_sequences", _BATCHES),
    differs("option.max_num_tokens", _BATCHES),
    differs("option.batch_scheduler_policy", _BATCHES),
    differs("option.waiting_steps", _BATCHES),
    differs("option.enable_trt_overlap", _BUILDING),
    differs("option.use_custom_all_reduce", _BUILDING),
    differs("option.multi_block_mode", _BUILDING),
    differs("option.baichuan_model_version", _BUILDING),
    differs("option.chatglm_model_version", _BUILDING),
    differs("option.gpt_model_version", _BUILDING),
    refused("option.speculative_draft_model", _SPECULATION),
    refused("option.speculative_model", _SPECULATION),
    refused("option.draft_model_tp_size", _SPECULATION),
    refused("option.speculative_length", _SPECULATION),
    refused("option.num_speculative_tokens", _SPECULATION),
    refused("option.cpu_offload_gb_per_gpu", "remove it: weights lie on the devices; raise the degree, or use int8"),
    refused("option.cpu_offload_gb", "remove it: weights lie on the devices; raise the degree, or use int8"),
    differs("option.max_loras", "reaches a handler of your own"),
    differs("option.max_lora_rank", "reaches a handler of your own"),
    differs("option.max_cpu_loras", "reaches a handler of your own"),
    differs("option.lora_extra_vocab_size", "reaches a handler of your own"),
    refused("option.n_positions", "Neuron devices are not served; write option.max_tokens"),
    refused("option.load_split_model", "Neuron devices are not served"),
    refused("option.neuron_optimize_level", "Neuron devices are not served"),
    refused("option.compiled_graph_path", "Neuron devices are not served"),
)

HANDLERS = (
    differs("option.task", "found in the checkpoint's architecture when it is not set"),
    differs("option.max_tokens", "the default is 1024 or what the model can, whichever is less"),
    differs("option.enable_streaming", "the default for requests that do not say; huggingface counts as true"),
    same("option.device_map", "engine=Python; engine=DeepSpeed splits by itself"),
    differs("option.low_cpu_mem_usage", "no effect: weights are never held twice"),
    differs("option.checkpoint", "no effect: split checkpoints are recognised by themselves"),
    differs("option.training_mp_size", "no effect: split checkpoints are recognised by themselves"),
    differs("option.deepspeed_config_path", "no effect: the options here are all there is to set"),
    refused("option.save_mp_checkpoint_path", "remove it: a checkpoint is read split, so nothing is saved for later"),
    differs("option.triangular_masking", "no effect: as the model's family needs it"),
    differs("option.return_tuple", "no effect: as the model's family needs it"),
    same("option.stop_sequence", "['a', 'b'], or one text"),
)
