"""A build that is killed goes on where it stopped, and its result is the same in every byte."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xxhash
from support.comparing import assert_same_folder
from support.renames import KILLED_AT_RENAME
from support.sampled import sampled

from shardtrain.cli.main import main
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import ScratchError, ShardsExistError, ShardsNotFoundError
from shardtrain.pipeline import build as job
from shardtrain.pipeline import convert as converting
from shardtrain.pipeline import workspace
from shardtrain.pipeline.build import build
from shardtrain.pipeline.given import GivenCorpus
from shardtrain.pipeline.options import BuildOptions, ConvertOptions
from shardtrain.pipeline.origin import open_again, recorded_origins
from shardtrain.pipeline.shards_job import FIRST_BUILD_OPTIONS
from shardtrain.runtime import jobs
from shardtrain.runtime.atomic import PARTIAL
from shardtrain.runtime.holders import is_lock
from shardtrain.runtime.jobs import RECORD
from shardtrain.shards import layout

MIDDLE = 12  # a rename when some units were counted
# Builds in units of 64 KiB, and kills itself at the moment of its Nth rename, before it (N below 0) or after it.
DRIVER = (
    KILLED_AT_RENAME
    + """
import sys
from pathlib import Path
from shardtrain.pipeline import build as job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions

if __name__ == "__main__":
    corpus, out, kind, workers, how, at, *by = sys.argv[1:]
    job.UNIT_BYTES = 1 << 16
    job.PARALLEL_BYTES = 0
    renamed = killed_at_rename(int(at), out, *(getattr(signal, name) for name in by))
    build(corpus, out, BuildOptions(vectorizer=kind, workers=int(workers), overwrite=how == "overwrite",
                                    resume=how == "resume", rows_per_shard=300, max_features=500))
    print("renames", len(renamed))
"""
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("driver") / "driver.py"
    path.write_text(DRIVER)
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, documents=700, classes=3, seed=3)
    return folder


def start(driver, demo, out, kind="ngram", *, workers=1, how="", at=0) -> subprocess.Popen:
    command = [sys.executable, driver, demo, out, kind, str(workers), how, str(at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def whole(demo, tmp_path_factory) -> dict[str, tuple[Path, int]]:
    """Uninterrupted builds of both kinds, and how many renames each makes."""
    built = {}
    for kind in ("ngram", "sequence"):
        out = tmp_path_factory.mktemp("whole") / kind
        renamed: list[str] = []

        def replace(source, target, renamed=renamed, real=os.replace):
            renamed.append(str(target))
            real(source, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(job, "UNIT_BYTES", 1 << 16)
            patch.setattr(os, "replace", replace)
            build(demo, out, options(vectorizer=kind, workers=1))
        built[kind] = (out, sum(str(out) in target for target in renamed))
    return built


def check_killed_and_resumed(building, demo, whole, tmp_path, kind, at) -> None:
    out = tmp_path / f"{kind}{at}"
    killed = building.run(DRIVER, demo, out, kind, 1, "", at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / layout.MANIFEST).exists() or abs(at) == whole[kind][1]
    build(demo, out, options(vectorizer=kind, workers=1))
    assert_same_folder(out, whole[kind][0])


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "part"),
    sampled([*(("ngram", part) for part in (0, 2, 3, 5)), *(("sequence", part) for part in (1, 4))], (1, 3, 4)),
)
def test_killed_at_a_commit_and_resumed_equals_uninterrupted(building, demo, whole, tmp_path, kind, part):
    renames = whole[kind][1]
    at = 1 + round((renames - 1) * part / 5)
    check_killed_and_resumed(building, demo, whole, tmp_path, kind, at if part % 2 else -at)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_killed_at_every_commit_and_resumed_equals_uninterrupted(building, demo, whole, tmp_path, kind):
    for at in range(1, whole[kind][1] + 1):
        check_killed_and_resumed(building, demo, whole, tmp_path, kind, at if at % 2 else -at)


def kill_until_done(driver, demo, out, kind, seed, most) -> int:
    """Kill at random moments, up to `most` times, some of them before anything new is on record; how often it was.

    The other kills come so soon after the first new record that three of them cannot let even a fast machine finish.
    """
    rng = random.Random(seed)
    for kills in range(most):
        process = start(driver, demo, out, kind, workers=2, how="resume" if (out / layout.MANIFEST).exists() else "")
        before, early = records(out), kills % 4 == 3
        while process.poll() is None and records(out) <= before and not early:  # so that it ends on a slow machine too
            time.sleep(0.01)
        try:
            process.wait(rng.uniform(0, 2.0 if early else 0.05))
            finish(process)
            return kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    finish(start(driver, demo, out, kind, workers=2, how="resume" if (out / layout.MANIFEST).exists() else ""))
    return most


def records(out: Path) -> int:
    """How many files an unfinished build has committed."""
    try:
        return sum(not path.name.endswith(PARTIAL) for path in (out / layout.WORKING).rglob("*"))
    except FileNotFoundError:  # it is being cleared
        return 0


def counted_units(out: Path) -> int:
    """How many units are on record as counted."""
    return sum(path.read_bytes().count(b"\n") for path in out.rglob("run.records"))


@pytest.mark.slow
@pytest.mark.heavy
def test_killed_at_random_moments_with_two_workers_equals_uninterrupted(driver, demo, whole, tmp_path):
    assert kill_until_done(driver, demo, tmp_path / "out", "ngram", seed=1, most=4) >= 3
    assert_same_folder(tmp_path / "out", whole["ngram"][0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_killed_at_many_random_moments_equals_uninterrupted(driver, demo, whole, tmp_path, kind, seed):
    assert kill_until_done(driver, demo, tmp_path / "out", kind, seed, most=30) >= 3
    assert_same_folder(tmp_path / "out", whole[kind][0])


@pytest.mark.heavy
@pytest.mark.parametrize("records_before", sampled([3, 0], ids=["after some units", "before a unit is done"]))
def test_a_killed_worker_costs_its_units_and_not_the_build(records_before, building, demo, whole, tmp_path):
    out = tmp_path / "out"
    process = started(building, demo, out, 2, tmp_path)
    workers: list[str] = []
    while alive(process) and (not workers or counted_units(out) < records_before):
        workers = workers_of(process)
        time.sleep(0.005)
    if alive(process):
        os.kill(int(workers[0]), signal.SIGKILL)
    code, err = building.wait(), (tmp_path / "err").read_text()
    assert code == 0, err
    assert records_before or "warning: a worker process died" in err  # a fast machine may be done before the other kill
    assert_same_folder(out, whole["ngram"][0])


def started(building, demo, out, workers, folder) -> int:
    """Begin a build in a process that tells what it does in the file `err` of a folder; its number."""
    return building.start(DRIVER, demo, out, "ngram", workers, "", 0, stderr=folder / "err", cwd=folder)


def workers_of(process: int) -> list[str]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [child for child in children if b"spawn_main" in command_of(child)]


def command_of(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_workers_end_when_their_parent_is_killed(building, demo, tmp_path):
    process = started(building, demo, tmp_path / "out", 2, tmp_path)
    children: list[str] = []
    while len(children) < 3 and alive(process):  # two workers and the resource tracker
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert building.wait() == -signal.SIGKILL
    waited = time.monotonic()
    while any(alive(child) for child in children) and time.monotonic() - waited < 60:
        time.sleep(0.05)
    assert children
    assert not any(alive(child) for child in children)


def alive(process: int | str) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


@pytest.fixture(scope="module")
def killed(building, demo, tmp_path_factory) -> Path:
    """An output folder whose build was killed in the middle."""
    out = tmp_path_factory.mktemp("killed") / "out"
    assert building.run(DRIVER, demo, out, "ngram", 1, "", MIDDLE).returncode == -signal.SIGKILL
    return out


@pytest.fixture
def interrupted(killed, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(killed, tmp_path / "out")


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units as the driver has them."""
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 16)


def options(**changed) -> BuildOptions:
    return BuildOptions(**{"rows_per_shard": 300, "max_features": 500, **changed})


def test_other_options_are_refused_by_name_and_nothing_is_lost(demo, interrupted):
    before = sorted(path.name for path in interrupted.rglob("*") if not is_lock(path.name))
    with pytest.raises(ShardsExistError, match="max_features was 500, it is 400 now"):
        build(demo, interrupted, options(max_features=400))
    assert sorted(path.name for path in interrupted.rglob("*")) == before


def test_a_changed_corpus_is_refused_by_name(demo, interrupted, tmp_path):
    path = demo / "train.csv"
    content, stat = path.read_bytes(), path.stat()
    try:
        path.write_bytes(content + b'"1","one","more"\n')
        with pytest.raises(ShardsExistError, match=r"train\.csv' had [\d,]+ bytes, it has [\d,]+ now"):
            build(demo, interrupted, options())
        path.write_bytes(content[:-3] + b'x"\n')
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # only its bytes tell
        with pytest.raises(ShardsExistError, match=r"train\.csv' was changed meanwhile"):
            build(demo, interrupted, options())
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    build(demo, interrupted, options())


def test_overwrite_starts_another_build_from_the_beginning(demo, interrupted):
    assert build(demo, interrupted, options(max_features=400, overwrite=True)).num_features == 400


def test_resume_without_an_interrupted_build_is_an_error(demo, tmp_path):
    with pytest.raises(ShardsNotFoundError, match="no interrupted build"):
        build(demo, tmp_path / "out", options(resume=True))
    assert not (tmp_path / "out").exists()


def test_resuming_a_complete_build_says_so_and_changes_nothing(demo, tmp_path, capsys):
    build(demo, tmp_path / "out", options())
    before = (tmp_path / "out" / layout.MEASURED).read_bytes()
    build(demo, tmp_path / "out", options(resume=True))
    assert "is complete" in capsys.readouterr().err
    assert (tmp_path / "out" / layout.MEASURED).read_bytes() == before
    with pytest.raises(ShardsExistError, match="already holds shards"):
        build(demo, tmp_path / "out", options())
    with pytest.raises(ShardsExistError, match="already holds shards"):
        build(demo, tmp_path / "out", options(resume=True, max_features=400))


# Digests that the first version computed for jobs over files that do not exist.
FIRST_DIGESTS = {
    "903d1e8b4f707c4e": {},
    "160d0a3829885373": {
        "vectorizer": "sequence",
        "max_features": 300,
        "max_length": 9,
        "seed": 4,
        "label_column": "stars",
        "text_columns": ("title", 1),
        "header": True,
    },
}


@pytest.mark.parametrize("digest", FIRST_DIGESTS)
def test_the_digest_of_a_build_is_that_of_the_first_version(digest, monkeypatch):
    monkeypatch.setattr(jobs, "__version__", "0.1.0")
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 22)
    made = job.job_for(GivenCorpus(paths=(Path("absent.csv"),)), Path("absent"), BuildOptions(**FIRST_DIGESTS[digest]))
    assert made.digest == digest


def test_the_digest_of_a_conversion_is_that_of_the_first_version(monkeypatch):
    made = []
    monkeypatch.setattr(jobs, "__version__", "0.1.0")
    monkeypatch.setattr(converting, "make_shards", lambda _, job, *__, **___: made.append(job))
    converting.convert([Path("absent.npz")], Path("out"), ConvertOptions(x=("a",), y=("b",), kind="dense"))
    assert made[0].digest == "263a904f29a30da5"


def test_an_option_that_is_added_later_counts_in_a_digest_only_where_it_is_not_the_default():
    def digest(**options: object) -> str:
        return jobs.file_job(options, {}, "p", defaults={"old": 1, "new": 2}, digested=frozenset({"old"})).digest

    assert digest(old=1) == digest(old=1, new=2)
    assert len({digest(), digest(old=1), digest(old=3), digest(old=1, new=3), digest(old=1, new=None)}) == 5


def test_finished_shards_of_a_version_without_later_options_are_complete(demo, tmp_path, capsys):
    out = tmp_path / "out"
    build(demo, out, options())
    record = {**job.job_for(GivenCorpus(paths=(demo,)), out, options()).record, "boot": None}
    assert "strip-accents" in record["options"]
    record["options"] = {name: value for name, value in record["options"].items() if name in FIRST_BUILD_OPTIONS}
    measured = json.loads((out / layout.MEASURED).read_text())
    older = xxhash.xxh3_64_hexdigest(json.dumps(record, sort_keys=True).encode())
    (out / layout.MEASURED).write_text(json.dumps({**measured, "job": older}))
    build(demo, out, options(resume=True))
    assert "is complete" in capsys.readouterr().err
    with pytest.raises(ShardsExistError, match="already holds shards"):
        build(demo, out, options(resume=True, strip_accents="none"))


def test_a_build_that_an_older_version_was_interrupted_in_is_resumed(demo, interrupted, capsys):
    owner = interrupted / layout.WORKING / RECORD
    record = json.loads(owner.read_text())
    known = FIRST_BUILD_OPTIONS | {"test"}  # without it the splits would be others than those of the scratch files
    record["options"] = {name: value for name, value in record["options"].items() if name in known}
    owner.write_text(json.dumps(record))
    with pytest.raises(ShardsExistError, match="strip_accents was unicode, it is none now"):
        build(demo, interrupted, options(strip_accents="none"))
    build(demo, interrupted, options(resume=True))
    assert "resuming the interrupted build" in capsys.readouterr().err


@pytest.mark.parametrize("seed", sampled(range(30), (1,)))
def test_a_bit_that_flipped_in_a_scratch_file_changes_no_byte_of_the_shards(demo, interrupted, whole, seed):
    chance = random.Random(seed)
    files = (path for path in interrupted.rglob("*") if path.is_file())
    path = chance.choice(sorted(file for file in files if file.read_bytes().startswith(b"\x89spilled")))
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    with contextlib.suppress(ScratchError):  # where the bit means something
        build(demo, interrupted, options(workers=1))
    if not (interrupted / layout.MANIFEST).exists():
        build(demo, interrupted, options(workers=1))
    assert_same_folder(interrupted, whole["ngram"][0])


def test_after_a_restart_of_the_machine_the_build_starts_again(demo, interrupted, capsys, whole):
    owner = interrupted / layout.WORKING / RECORD
    owner.write_text(json.dumps({**json.loads(owner.read_text()), "store": "another"}))
    build(demo, interrupted, options(resume=False))
    assert "restarted" in capsys.readouterr().err


def test_a_second_build_of_the_same_folder_is_refused_while_the_first_runs(demo, tmp_path):
    with (
        workspace.workspace(
            tmp_path / "out",
            job.job_for(GivenCorpus(paths=(demo,)), tmp_path / "out", options()),
            overwrite=False,
            resume=False,
        ),
        pytest.raises(ShardsExistError, match="another build is running"),
    ):
        build(demo, tmp_path / "out", options())


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(building, demo, whole, tmp_path):
    done = building.run(DRIVER, demo, tmp_path / "out", "ngram", 1, "", MIDDLE, "SIGINT")
    assert done.returncode == 1
    assert b"the same command resumes the build" in done.stderr
    assert counted_units(tmp_path / "out")
    assert not (tmp_path / "out" / layout.MANIFEST).exists()
    build(demo, tmp_path / "out", options(workers=1))
    assert_same_folder(tmp_path / "out", whole["ngram"][0])


@pytest.mark.slow
def test_ctrl_c_while_two_workers_build_keeps_what_is_done(building, demo, whole, tmp_path):
    process = started(building, demo, tmp_path / "out", 2, tmp_path)
    while not counted_units(tmp_path / "out"):
        assert alive(process)
        time.sleep(0.01)
    os.kill(process, signal.SIGINT)
    assert building.wait() == 1
    assert "the same command resumes the build" in (tmp_path / "err").read_text()
    build(demo, tmp_path / "out", options(workers=1))
    assert_same_folder(tmp_path / "out", whole["ngram"][0])


def test_a_build_into_a_folder_of_its_corpus_goes_on_and_finds_its_documents_again(demo, tmp_path, monkeypatch, capsys):
    corpus = tmp_path / "corpus"
    shutil.copytree(demo, corpus)
    write_texts_of_classes(corpus / "held", ("pos", "neg"))
    out = corpus / "shards" / "first"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "place_split", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(corpus, out, options())
    build(corpus, out, options())
    assert "resuming the interrupted build" in capsys.readouterr().err
    (origin,) = recorded_origins(out)
    assert open_again(origin, scratch=tmp_path).train.num_bytes == (corpus / "train.csv").stat().st_size


def write_texts_of_classes(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "1.txt").write_text("a text")


@pytest.mark.parametrize("changed", ["train.csv", "test.csv", "classes.txt", "held/pos/1.txt"])
def test_what_a_corpus_folder_is_known_by_is_all_that_can_be_read_of_it(demo, tmp_path, changed):
    corpus = tmp_path / "corpus"
    shutil.copytree(demo, corpus)
    write_texts_of_classes(corpus / "held", ("pos", "neg"))
    before = workspace.files_of(corpus)
    for other in ("README.md", "shards/manifest.json", ".git/config.txt"):
        (corpus / other).parent.mkdir(exist_ok=True)
        (corpus / other).write_text("none of it")
    assert workspace.files_of(corpus) == before
    (corpus / changed).write_text("changed")
    assert workspace.files_of(corpus) != before


def test_units_of_another_size_are_another_build(demo, interrupted, monkeypatch):
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 17)
    with pytest.raises(ShardsExistError, match="units of 65536 bytes"):
        build(demo, interrupted, options())


def test_the_command_line_resumes_too(demo, interrupted, capsys):
    arguments = ["build", str(demo), "--out", str(interrupted), "--rows-per-shard", "300", "--max-features", "500"]
    assert main([*arguments, "--resume"]) == 0
    assert "resuming the interrupted build" in capsys.readouterr().err
