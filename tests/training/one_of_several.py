"""One of several processes that train as one: its arguments are PORT COUNT NUMBER FOLDER SCENE...

Each scene is a run in a directory of FOLDER; a process prints a line of JSON for each.
"""

import json
import os
import signal
import sys

DEVICES = {"1": 4, "2": 2, "4": 1}  # of one process, so that there are always four
DEVICES_OF_KILLED = 2  # of one of four processes


def main(port, count, number, folder, *scenes):
    devices = DEVICES_OF_KILLED if "killed" in scenes else DEVICES[count]
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_platforms", "cpu")
    if count != "1":
        from jaxcnn.runtime import distributed

        distributed.begin(f"localhost:{port}", int(count), int(number))
    from small import small_config
    from tiny import Tiny

    from jaxcnn import models
    from jaxcnn._files import any_path

    models.register("tiny", Tiny)
    for scene in scenes:
        told = SCENES[scene](small_config(), any_path(folder), int(number))
        print(json.dumps({"scene": scene, **told}), flush=True)


def run(config, directory, **options):
    from jaxcnn.training import train

    config.train.devices = 0
    reports = list(train(config, directory, **options))
    first, last = reports[0], reports[-1]
    return {
        "from": first.step,
        "last": last.kind,
        "step": last.step,
        "devices": first.values["device_count"],
        "processes": first.values["process_count"],
        "test_loss": [r.values["loss"] for r in reports if r.kind == "eval"],
    }


def whole(config, folder, number):
    return run(config, folder / "whole")


def scanned(config, folder, number):
    """Two steps in a call, with a running average and a plateau's state."""
    config.train.steps_per_call = 2
    config.train.ema_decay = 0.9
    config.schedule = {"name": "plateau", "learning_rate": 0.1, "patience": 1}
    return run(config, folder / "scanned")


def streamed(config, folder, number):
    """23 test images in batches of 8: the last ones are padded, and not all processes have some."""
    config.data.source = f"folder:{folder / 'photos'}"
    config.data.train_split, config.data.test_split = "train", "test"
    config.data.image_size, config.data.augment = 8, (("flip", 0.5),)
    config.train.batch_size, config.eval.batch_size = 16, 8
    return run(config, folder / "streamed")


def taken(config, folder, number):
    """The directory holds a run: everyone is told."""
    try:
        run(config, folder / "moved")
    except ValueError as error:
        return {"error": str(error)}
    return {}


def resumed(config, folder, number):
    return run(config, folder / "moved", resume=True)


def stopped(config, folder, number):
    """The last process is asked to stop, and all stop at one step."""
    from jaxcnn.runtime import distributed
    from jaxcnn.training import train

    config.train.devices = 0
    config.train.length_steps = 4000
    config.eval.every_steps = config.checkpoint.every_steps = 4000
    with train(config, folder / "stopped") as reports:
        for report in reports:
            if report.kind == "step" and report.step == 5 and number == distributed.count() - 1:
                os.kill(os.getpid(), signal.SIGTERM)
    return {"last": report.kind, "step": report.step, "signal": report.values.get("signal")}


def lost(config, folder, number):
    """As the commands train; one of the processes is to be killed."""
    from jaxcnn.cli.train import train_and_show

    config.train.devices = 0
    config.train.length_steps = 100_000
    config.eval.every_steps = config.checkpoint.every_steps = 100_000
    return {"code": train_and_show(config, folder / "lost")}


def killed(config, folder, number):
    """As the commands train, or continue; one of the processes is to be killed at any moment."""
    from jaxcnn.cli.train import train_and_show

    (folder / f"connected_{number}").touch()
    config.train.devices = 0
    config.train.length_steps = 60
    config.eval.every_steps = config.checkpoint.every_steps = 5
    resume = (folder / "killed" / "config.json").exists()
    return {"code": train_and_show(config, folder / "killed", resume=resume)}


SCENES = {f.__name__: f for f in (whole, scanned, streamed, taken, resumed, stopped, lost, killed)}

if __name__ == "__main__":
    main(*sys.argv[1:])
