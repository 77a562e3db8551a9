"""Released models come by name from a server on this machine, once."""

import functools
import http.server
import sys
import threading

import numpy as np
import pytest
from checkpoint_files import (
    ESM1_CONFIG,
    ESM1B_CONFIG,
    ESM2_CONFIG,
    random_model,
    write_fair_esm,
)
from random_models import same

from mlx_esm_kernels import load_model
from mlx_esm_kernels.data import download
from mlx_esm_kernels.models.esm1 import ESM1Config
from mlx_esm_kernels.weights import RELEASED, WeightsError

pytest.importorskip("torch")

ESM1B_NAME, ESM1V_NAME, ESM1_NAME, ESM2_NAME = (
    "esm1b_t33_650M_UR50S",
    "esm1v_t33_650M_UR90S_3",
    "esm1_t6_43M_UR50S",
    "esm2_t6_8M_UR50D",
)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The folder of a server with fair-esm's layout."""
    folder = tmp_path / "server"
    (folder / "models").mkdir(parents=True)
    (folder / "regression").mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        url = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("MLX_ESM_KERNELS_MODELS_URL", url)
        monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield folder
        running.shutdown()
        thread.join()


def publish(folder, name, config):
    model = random_model(config)
    path = write_fair_esm(folder / "models" / f"{name}.pt", model)
    regression = path.with_name(f"{name}-contact-regression.pt")
    if regression.exists():
        regression.rename(folder / "regression" / regression.name)
    return model


def test_seventeen_models_are_known():
    assert len(RELEASED) == 17
    assert {"esm1_t34_670M_UR100", "esm1v_t33_650M_UR90S_5", ESM1B_NAME} < set(RELEASED)
    assert {"esm2_t6_8M_UR50D", "esm2_t48_15B_UR50D"} < set(RELEASED)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (ESM1B_NAME, ESM1B_CONFIG),
        (ESM1V_NAME, ESM1Config(1, 8, 16, 2, max_positions=9, emb_layer_norm_before=False)),
        (ESM1_NAME, ESM1_CONFIG),
        (ESM2_NAME, ESM2_CONFIG),
    ],
)
def test_a_name_is_downloaded_once_and_then_needs_neither_server_nor_torch(
    server, tmp_path, monkeypatch, capsys, name, config
):
    model = publish(server, name, config)
    assert same(load_model(name), model)
    assert f"no checksum is published for {name}" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "cache/models").glob("*.safetensors")] == [
        f"{name}.safetensors"
    ]
    assert not list((tmp_path / "cache/models").glob("*.pt"))
    for path in server.glob("*/*.pt"):
        path.unlink()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert same(load_model(name), model)


def test_a_file_of_that_name_is_meant_rather_than_the_released_model(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = random_model(ESM1B_CONFIG)
    path = write_fair_esm(tmp_path / f"{ESM1B_NAME}.pt", model)
    path.rename(tmp_path / ESM1B_NAME)
    assert same(load_model(ESM1B_NAME), model)


def test_a_word_that_is_no_released_model_lists_those_that_are():
    with pytest.raises(WeightsError, match=r"no weights file esm1c\. The released models are"):
        load_model("esm1c")


def test_what_the_server_does_not_have_is_said(server):
    with pytest.raises(WeightsError, match=r"models/esm1b_t33_650M_UR50S\.pt .* answers 404"):
        load_model(ESM1B_NAME)
    publish(server, ESM1B_NAME, ESM1B_CONFIG)
    for path in server.glob("regression/*"):
        path.unlink()
    with pytest.raises(WeightsError, match=r"UR50S-contact-regression\.pt .* answers 404"):
        load_model(ESM1B_NAME)


def test_a_damaged_record_is_noticed_and_the_file_is_not_kept(server, tmp_path):
    model = publish(server, ESM1V_NAME, ESM1Config(1, 8, 16, 2, max_positions=9))
    path = server / "models" / f"{ESM1V_NAME}.pt"
    content = bytearray(path.read_bytes())
    numbers = np.array(model.layers[0].fc1.weight).tobytes()
    content[content.index(numbers)] ^= 1  # torch would not notice
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"arrived damaged, twice \(Bad CRC-32 for file"):
        load_model(ESM1V_NAME)
    path.write_bytes(b"<html>please sign in</html>")
    with pytest.raises(WeightsError, match=r"arrived damaged, twice \(.*no file of torch\.save"):
        load_model(ESM1V_NAME)
    assert not list((tmp_path / "cache/models").glob("*.safetensors"))


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path, monkeypatch):
    model = publish(server, ESM1V_NAME, ESM1Config(1, 8, 16, 2, max_positions=9))
    whole = (server / "models" / f"{ESM1V_NAME}.pt").read_bytes()
    asked = []

    class Cut(Handler):
        """Ends the first answer half way, and knows ranges."""

        def do_GET(self):
            asked.append(self.headers["Range"])
            start = int(self.headers["Range"][6:-1]) if self.headers["Range"] else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
            self.send_header("Content-Length", str(len(whole) - start))
            self.send_header("ETag", '"v1"')
            self.end_headers()
            self.wfile.write(whole[start:] if start else whole[: len(whole) // 2])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut) as cutting:
        url = f"http://127.0.0.1:{cutting.server_port}"
        monkeypatch.setenv("MLX_ESM_KERNELS_MODELS_URL", url)
        thread = threading.Thread(target=cutting.serve_forever, args=(0.01,))
        thread.start()
        assert same(load_model(ESM1V_NAME), model)
        cutting.shutdown()
        thread.join()
    assert asked == [None, f"bytes={len(whole) // 2}-"]


def test_without_torch_nothing_is_downloaded_and_what_needs_none_is_said(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    install = r"once: pip install 'mlx-esm-kernels\[convert\]'\."
    for name in (ESM1B_NAME, ESM2_NAME):
        with pytest.raises(WeightsError, match=rf"{install} Or give facebook/{name}, the Hugging"):
            load_model(name)
    with pytest.raises(WeightsError, match=rf"{install}$"):
        load_model(ESM1_NAME)


def test_esm1_has_its_released_name_on_the_hub_too_where_it_is_not(server):
    model = publish(server, ESM1_NAME, ESM1_CONFIG)
    assert same(load_model(f"facebook/{ESM1_NAME}"), model)
