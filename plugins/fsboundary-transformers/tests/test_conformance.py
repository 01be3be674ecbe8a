from fsboundary_transformers.extractor import HuggingFace

from fsboundary.testing import feature_extractor_tests

test_own_head = feature_extractor_tests(HuggingFace)
test_earlier_layer = feature_extractor_tests(
    lambda: HuggingFace(layer="vit.layernorm", pooling="patches")
)
