"""What sphinx-gallery calls before and after every script.

Named by string in conf.py, so that the workers of a parallel build import it too.
"""

import gc
import json
import os
import resource
import time
from pathlib import Path

import book

_start = {}


def reset(gallery_conf, fname, when):
    """Start each script from the same state, and note what it cost."""
    import keras
    import matplotlib.pyplot as plt

    name = Path(fname).stem
    generated = Path(os.environ["DLCOMPANION_GENERATED"])
    if when == "after":
        cost = {
            "script": name,
            "cpu_seconds": round(_cpu() - _start["cpu"], 2),
            "wall_seconds": round(time.perf_counter() - _start["wall"], 2),
            "process_seconds_before": round(_start["process"], 2),
            "fingerprint": _start["fingerprint"],
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        _write(generated / "runs" / f"{name}.json", cost)
    keras.backend.clear_session(free_memory=True)
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    plt.close("all")
    gc.collect()
    if when == "before":
        import imageio_ffmpeg

        plt.style.use(Path(__file__).with_name("book.mplstyle"))
        plt.rcParams["animation.ffmpeg_path"] = imageio_ffmpeg.get_ffmpeg_exe()
        record = generated / "claims" / f"{name}.jsonl"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        os.environ["DLCOMPANION_CLAIMS"] = str(record)
        script = next(p for p in book.scripts() if p.stem == name)
        _start.update(
            fingerprint=book.fingerprint(script),
            process=time.process_time(),
            cpu=_cpu(),
            wall=time.perf_counter(),
        )


def _cpu():
    """CPU seconds of this process and of the children it has waited for (ffmpeg)."""
    uses = [
        resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(u.ru_utime + u.ru_stime for u in uses)


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
