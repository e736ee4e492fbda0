"""Attacks by config.json, and by what a command line asks for."""

from attacks.attack import INSPECT, PLAN, Attack, content, fields, without

CONFIG = "config.json"
MLX = ("plan", "MODEL", "--to", "mlx", "-q")
RECOMMEND = ("recommend", "MODEL", "--device", "raspberry-pi-5-8gb")
LONG = {"type": "longrope", "short_factor": [1.0] * 16, "long_factor": [1.0] * 16}


def config(name, words, command=PLAN, **changes):
    return Attack(name, "checkpoint", fields(CONFIG, **changes), words, command)


def text(name, data, *words):
    return Attack(name, "checkpoint", content(CONFIG, data), (CONFIG, *words))


def scaled(name, words, **changes):
    return config(
        name,
        words,
        rope_scaling=LONG | changes,
        original_max_position_embeddings=64,
    )


ATTACKS = [
    text("nothing in config.json", "", "not valid JSON"),
    text("a list in config.json", "[1]", "JSON object"),
    text("null in config.json", "null", "JSON object"),
    text("a number of 5000 digits", '{"hidden_size": ' + "9" * 5000 + "}", "64 digits"),
    text("a number of two million digits", '{"a": ' + "9" * 2_000_000 + "}", "64 digits"),
    text("a real number of two million digits", '{"a": 0.' + "9" * 2_000_000 + "}", "beyond"),
    text("a number beyond all numbers", '{"rope_theta": 1e999}', "1e999"),
    text("NaN", '{"rope_theta": NaN}', "NaN is no number"),
    text("minus infinity", '{"rope_theta": -Infinity}', "-Infinity is no number"),
    text("100,000 brackets", "[" * 100_000, "deep"),
    text("100,000 objects", '{"a":' * 100_000, "deep"),
    text("100 lists within one another", '{"a":' + "[" * 100 + "]" * 100 + "}", "deep"),
    text("a key twice", '{"hidden_size": 1, "hidden_size": 2}', "hidden_size", "given twice"),
    text("half of a surrogate pair", '{"a": "\\ud800"}', "surrogate"),
    text("half of one in a key", '{"\\udfff": 1}', "surrogate"),
    text("the pair the wrong way round", '{"a": "\\udc00\\ud800"}', "surrogate"),
    text("bytes that are no text", b'{"a": "\xff"}', "UTF-8"),
    text("a surrogate as bytes", b'{"a": "\xed\xa0\x80"}', "UTF-8"),
    text("an overlong zero", b'{"a": "\xc0\x80"}', "UTF-8"),
    text("UTF-16", '{"a": 1}'.encode("utf-16"), "UTF-8"),
    text("a mark of the byte order", "\ufeff{}", "not valid JSON"),
    text("a million empty objects", lambda: "[" + "{}," * 1_300_000 + "1]", "JSON object"),
    text("a comment", "{} // none", "not valid JSON"),
    config("no layers", ("num_hidden_layers",), num_hidden_layers=0),
    config("two billion layers", ("num_hidden_layers", "10000"), num_hidden_layers=2**31 - 1),
    config("ten thousand layers", ("num_hidden_layers is 10000",), num_hidden_layers=10_000),
    config("true layers", ("num_hidden_layers",), num_hidden_layers=True),
    config("half a layer", ("num_hidden_layers",), num_hidden_layers=1.5),
    config("two billion tokens", ("vocab_size", "2097152"), vocab_size=2**31 - 1),
    config("two billion tokens, for a device", ("vocab_size",), RECOMMEND, vocab_size=2**31 - 1),
    config("no heads", ("num_attention_heads",), num_attention_heads=0),
    config("heads that cannot share", ("3 key-value heads",), num_key_value_heads=3),
    config("more key-value heads than heads", ("cannot share",), num_key_value_heads=8),
    config("heads of a name", ("num_attention_heads",), num_attention_heads="four"),
    config("a hidden size of a list", ("hidden_size",), hidden_size=[128]),
    config("a hidden size of an object", ("hidden_size",), hidden_size={"a": 1}),
    config("a head of two billion values", ("8589934584",), head_dim=2**31 - 2),
    config("an epsilon below zero", ("rms_norm_eps",), rms_norm_eps=-1e-5),
    config("an epsilon of a name", ("rms_norm_eps",), rms_norm_eps="small"),
    config("an epsilon too small for float32", ("rms_norm_eps",), rms_norm_eps=1e-60),
    config("theta of nothing", ("rope_theta",), rope_theta=0),
    config("theta beyond float32", ("rope_theta",), rope_theta=1e300),
    config("no rotary dimensions", ("partial_rotary_factor",), partial_rotary_factor=1e-9),
    config("twice as many rotary dimensions", ("partial_rotary_factor",), partial_rotary_factor=2),
    config("a scaling that is a list", ("rope_scaling",), rope_scaling=[1]),
    config("a scaling that is a text", ("rope_scaling",), rope_scaling="longrope"),
    config("a scaling of an unknown type", ("'dynamic'",), rope_scaling={"type": "dynamic"}),
    config("a scaling whose type is a list", ("rope type",), rope_scaling={"type": ["longrope"]}),
    config("parameters that are a list", ("rope_parameters",), rope_parameters=[1]),
    config("LongRoPE without factors", ("short_factor",), rope_scaling={"type": "longrope"}),
    scaled("too few factors", ("short_factor", "16"), short_factor=[1.0]),
    scaled("a million factors", ("long_factor", "16"), long_factor=[1.0] * 300_000),
    scaled("a factor of nothing", ("long_factor",), long_factor=[0.0] * 16),
    scaled("a factor that is a text", ("long_factor",), long_factor=["1"] * 16),
    scaled("factors that are a text", ("long_factor",), long_factor="1" * 16),
    scaled("an attention factor below zero", ("attention_factor",), attention_factor=-1),
    scaled("an original length of nothing", ("original_max",), original_max_position_embeddings=0),
    config("an activation of a list", ("hidden_act",), hidden_act=["silu"]),
    config("an activation of megabytes", ("hidden_act",), hidden_act="s" * 3_000_000),
    config("an architecture of megabytes", ("Phi3ForCausalLM",), architectures=["x" * 3_000_000]),
    config("an architecture of a number", ("Phi3ForCausalLM",), architectures=[7], model_type=8),
    config("architectures of a text", ("Phi3ForCausalLM",), architectures="Phi3", model_type="x"),
    config("an architecture that steers terminals", ("Phi3",), architectures=["\x1b]0;x\x07"]),
    config(
        "weights that are quantized",
        ("quantized already", "quantization_config"),
        quantization_config=[1],
    ),
    config(
        "weights that a runtime quantizes",
        ("quantized already", "bitnet"),
        quantization_config={"quant_method": "bitnet", "quantization_mode": "online"},
    ),
    config(
        "a rotary embedding twice",
        ("rope_parameters", "rope_scaling", "differ"),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rope_scaling={"rope_type": "linear", "factor": 2.0},
    ),
    config("biases", ("biases",), attention_bias="yes"),
    config("positions without end", ("max_position_embeddings",), max_position_embeddings=2**40),
    config("a window of nothing", ("sliding_window",), sliding_window=0),
    config("a window of a text", ("sliding_window",), sliding_window="wide"),
    config("an end of a text", ("eos_token_id",), eos_token_id="<|end|>"),
    config("an end that is no token", ("eos_token_id",), eos_token_id=2_000_000),
    config("a million ends", ("eos_token_id",), eos_token_id=list(range(400_000))),
    Attack("no config.json", "checkpoint", lambda d: (d / CONFIG).unlink(), (CONFIG,)),
    *(
        Attack(f"no {name}", "checkpoint", without(CONFIG, name), (name,))
        for name in ("hidden_size", "vocab_size", "rope_theta", "rms_norm_eps")
    ),
    Attack(
        "a calibration of a billion tokens",
        "checkpoint",
        lambda d: None,
        ("no sequence of 999999999 tokens",),
        ("plan", "MODEL", "--quality", "balanced", "--calibration-size", "1x999999999", "-q"),
    ),
    Attack(
        "a calibration of more tokens than there are numbers",
        "checkpoint",
        lambda d: None,
        ("a calibration size",),
        ("plan", "MODEL", "--quality", "balanced", "--calibration-size", f"1x{'9' * 40}", "-q"),
    ),
    Attack(
        "a calibration of thousands of digits",
        "checkpoint",
        lambda d: None,
        ("a calibration size",),
        ("plan", "MODEL", "--quality", "balanced", "--calibration-size", f"{'9' * 5000}x2", "-q"),
    ),
    Attack(
        "a size of thousands of digits",
        "checkpoint",
        lambda d: None,
        ("a size such as",),
        ("plan", "MODEL", "--max-size", "9" * 5000, "-q"),
    ),
    Attack(
        "bits without a number",
        "checkpoint",
        lambda d: None,
        ("--bits-per-weight",),
        ("plan", "MODEL", "--bits-per-weight", "nan", "-q"),
    ),
    Attack(
        "an architecture of MLX's that divides by zero",
        "mlx",
        fields(
            CONFIG,
            rope_scaling={"type": "longrope", "long_factor": [1.0] * 16},
            original_max_position_embeddings=1,
        ),
        ("original length",),
        INSPECT,
    ),
]
