"""`phiquant devices`."""

import json

from command_line import assert_refused, call


def test_listing_and_filtering():
    everything = json.loads(call("devices", "--json").out)["devices"]
    macs = json.loads(call("devices", "--class", "mac", "--memory", "20", "--json").out)["devices"]
    assert 0 < len(macs) < len(everything)
    assert all(one["kind"] == "mac" and one["usable_gib"] >= 20 for one in macs)
    npus = json.loads(call("devices", "--target", "openvino", "--json").out)["devices"]
    assert all("openvino" in {each["target"] for each in one["engines"]} for one in npus)
    assert all(one["source"] for one in everything)
    shown = call("devices", "--class", "iot")
    assert "raspberry-pi-5-8gb" in shown.out
    assert "macbook" not in shown.out


def test_filters_that_mean_nothing():
    assert_refused(call("devices", "--class", "toaster"), 2, "toaster", "mobile")
    assert_refused(call("devices", "--target", "tflite"), 2, "tflite", "gguf")
    assert_refused(call("devices", "--file", "/nowhere.toml"), 2, "cannot read")
