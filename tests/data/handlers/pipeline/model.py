"""The shortest style: a transformers pipeline in a global, made when the first request comes."""

from transformers import pipeline

from djl_python import Input, Output

predictor = None


def get_model(properties):
    location = properties.get("model_id") or properties["model_dir"]
    return pipeline("text-generation", model=location, tokenizer=location)


def handle(inputs: Input) -> Output:
    global predictor
    if not predictor:
        predictor = get_model(inputs.get_properties())
    if inputs.is_empty():
        # the call that only warms the model up
        return None

    data = inputs.get_as_json()
    parameters = data.get("parameters", {})
    result = predictor(data["inputs"], do_sample=False, **parameters)
    return Output().add_as_json(result).add_property("content-type", "application/json")
