"""A folder of `ddps refine`: many items, of which any may fail, in a run that may be stopped and resumed."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..atomic import remove_leftovers
from ..errors import InputError
from ..out_of_memory import OutOfMemoryError, memory_for
from ..outputs import Refinement
from ..processes import Group, processes
from ..progress import Progress
from ..refiner import DDPSRefiner
from ..review import Row
from ..review_rows import RowFile
from ..video import VideoRefiner
from .pairs import name_item
from .refine_item import CannotWrite, Classes, Job, Loaded, is_done, load, measure_item, of_the_disk, refine, save
from .refine_jobs import Jobs
from .refine_pipeline import overlap
from .refine_plan import PAGE, PICTURES, SUMMARY, Plan, check_inputs_stay, check_outputs_new, make_folder, plan_folders
from .refine_report import one_line, summarise
from .refine_review import Review, write_review
from .refine_rows import collect_rows, rows_path
from .report import say_error, to_json, write_text

OpenRefiner = Callable[[argparse.Namespace, Classes], tuple[DDPSRefiner | VideoRefiner, Classes]]
SOME_FAILED, NOTHING_DONE = 1, 2
ITEM_ERRORS = (InputError, OSError)
NO_MOVES = float("inf")
MOST_ALONE = 20
"""Predictions without an image that get a line each on stderr."""


@dataclass
class Outcome:
    """What has become of a run so far.

    Names of what is left are held, and not of what is done, so that a long run does not grow.
    """

    saved: int = 0
    undone: set[str] = field(default_factory=set)
    smaller: set[str] = field(default_factory=set)  # refined in smaller tiles than asked for
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None


def run_folder(
    args: argparse.Namespace, classes: Classes, open_refiner: OpenRefiner, workers: int, review_most: int
) -> int:
    """Refines a folder, under torchrun in several processes that share its items, then writes its summary.

    Args:
        args: of the command.
        classes: what is known without the weights.
        open_refiner: loads the weights, once there is something to do.
        workers: threads that load, and as many that save.
        review_most: items on the page of --review.

    Returns:
        Exit code: 0; 1 when some items failed; 2 when the disk took nothing at all.

    Raises:
        InputError: nothing could start.
    """
    with processes() as group:
        if args.video and group.world > 1:
            raise InputError("one process with --video, whose frames know of each other", str(group.world), "one")
        plan, todo = group.first(lambda: _begin(args))
        outcome = Outcome()
        if group.leads:
            _say_alone(plan, outcome)
        if todo:
            args.device = group.device(args.device)
            refiner, classes = group.one_then_all(lambda: _prepare(args, classes, open_refiner, todo))
            _refine_all(group.share(todo), args, classes, refiner, workers, group, outcome)
        outcome = _together(group.gather(outcome))
        return group.first(lambda: _end(args, classes, plan, todo, review_most, workers, outcome))


def _begin(args: argparse.Namespace) -> tuple[Plan, Jobs]:
    """What the folders hold, and what of it is to do."""
    plan = plan_folders(args)
    check_inputs_stay(plan.jobs)
    if not (args.resume or args.overwrite):
        check_outputs_new(plan.jobs, args.output, args.review is not None)
    remove_leftovers(*{path.parent for path in plan.jobs[0].outputs}, args.output / PICTURES)
    todo = plan.jobs.without(is_done) if args.resume else plan.jobs
    collect_rows(args.output, NO_MOVES)
    return plan, todo


def _prepare(
    args: argparse.Namespace, classes: Classes, open_refiner: OpenRefiner, todo: Sequence[Job]
) -> tuple[DDPSRefiner | VideoRefiner, Classes]:
    opened = open_refiner(args, classes)
    for folder in {path.parent for path in todo[0].outputs}:
        make_folder(folder)
    return opened


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """What has become of all processes' shares."""
    whole = Outcome()
    for outcome in outcomes:
        whole.saved += outcome.saved
        whole.undone |= outcome.undone
        whole.failed |= outcome.failed
        whole.smaller |= outcome.smaller
        whole.stopped = whole.stopped or outcome.stopped
    return whole


def _end(
    args: argparse.Namespace,
    classes: Classes,
    plan: Plan,
    todo: Sequence[Job],
    review_most: int,
    workers: int,
    outcome: Outcome,
) -> int:
    """Says what has been done, and writes it down; gives the exit code."""
    known = collect_rows(args.output, NO_MOVES if args.review is None else args.review)
    # A row without its mask is of an item that a kill interrupted.
    rows = [known[name] for name in plan.jobs.stems if name in known and name not in outcome.undone]
    report = _report(args, plan, len(plan.jobs) - len(todo), rows, outcome)
    if outcome.stopped is None and rows:
        _write_summary(args, classes, plan.jobs, rows, review_most, workers, report)
    print(to_json(report) if args.json else one_line(report))
    if outcome.stopped is not None and not outcome.saved:
        return NOTHING_DONE
    return SOME_FAILED if outcome.failed or report["stopped"] is not None else 0


def _say_alone(plan: Plan, outcome: Outcome) -> None:
    for number, path in enumerate(plan.alone):
        error = InputError(f"{path.name}: an image of the same stem", "none", "adding it, or moving this file away")
        outcome.failed[path.stem] = str(error)
        if number < MOST_ALONE:
            say_error(error)
    if len(plan.alone) > MOST_ALONE:
        got = f"{len(plan.alone) - MOST_ALONE} more predictions without one"
        say_error(InputError("an image for every prediction", got, f"{SUMMARY}, which lists them all"))


def _refine_all(
    todo: Jobs,
    args: argparse.Namespace,
    classes: Classes,
    refiner: DDPSRefiner | VideoRefiner,
    workers: int,
    group: Group,
    outcome: Outcome,
) -> None:
    """Every job that can be done; adds to `outcome`.

    What finds no memory beside its neighbours is tried once more by itself at the end; a video's frames wait for none.
    """
    overwrite = args.overwrite or args.resume
    outcome.undone.update(todo.stems)
    bar = Progress(len(todo), "refining", shown=group.leads)
    tile = args.tile or refiner.config.inference.tile
    short: list[Job] | None = None if args.video else []
    in_memory = memory_for("memory for the item", "a smaller --tile, --format png, or its image cut to pieces")

    def work(job: Job, loaded: Loaded) -> tuple[Loaded, Refinement]:
        refined = refine(refiner, job, loaded, args)
        outcome.smaller.discard(job.name)
        if refined.tile is not None and refined.tile < tile:
            outcome.smaller.add(job.name)
        return loaded, refined

    def keep(job: Job, made: tuple[Loaded, Refinement]) -> Row:
        row = measure_item(job, *made)
        try:
            file.add(row)
        except OSError as error:
            raise of_the_disk(error) from error
        save(job, *made, overwrite)
        return row

    def finish(job: Job, saved: Row | Exception) -> None:
        if isinstance(saved, OutOfMemoryError) and short is not None:
            short.append(job)
            return
        if isinstance(saved, Row):
            outcome.saved += 1
            outcome.undone.discard(job.name)
        else:
            error = name_item(saved, job.inputs[-1].name)
            outcome.failed[job.name] = str(error)
            _say(error, bar)
        bar.advance()

    try:
        file = RowFile(rows_path(args.output, group.rank))
    except OSError as error:
        got = f"{str(args.output)!r}: {error.strerror or error}"
        raise InputError("a folder that can be written to", got, "another folder, or its permissions") from None
    stages = in_memory(partial(load, classes=classes)), in_memory(work), in_memory(keep)
    try:
        overlap(todo, *stages, finish, workers, ITEM_ERRORS)
        alone, short = short or [], None
        for job in alone:
            overlap([job], *stages, finish, 1, ITEM_ERRORS)
    except CannotWrite as error:
        got = f"{error}, after {outcome.saved} of {len(todo)} items"
        stop = InputError(f"to be able to write to {str(args.output)!r}", got, "making room, then --resume")
        outcome.stopped = str(stop)
        _say(stop, bar)
    finally:
        file.close()


def _report(
    args: argparse.Namespace, plan: Plan, skipped: int, rows: Sequence[Row], outcome: Outcome
) -> dict[str, object]:
    report: dict[str, object] = {
        "refined": outcome.saved,
        "skipped": skipped,
        "failed": [{"name": name, "error": outcome.failed[name]} for name in sorted(outcome.failed)],
        "stopped": outcome.stopped,
        "smaller_tiles": len(outcome.smaller - outcome.undone),
        "without_prediction": plan.without_prediction,
        # done without a row: by a version that wrote none, or the rows were taken away
        "without_row": max(0, skipped + outcome.saved - len(rows)),
    }
    return report | summarise(rows) | {"output": str(args.output)}


def _write_summary(
    args: argparse.Namespace,
    classes: Classes,
    jobs: Jobs,
    rows: Sequence[Row],
    review_most: int,
    workers: int,
    report: dict[str, object],
) -> None:
    try:
        if args.review is not None:
            review = Review(
                args.output, args.review, review_most, f"Labels to review: {args.prediction.resolve().name}"
            )
            report["review"] = write_review(review, jobs, rows, classes, workers)
        write_text(to_json(report) + "\n", args.output / SUMMARY, overwrite=True)
    except OSError as error:
        got = error.strerror or str(error)
        stop = InputError(f"to be able to write {SUMMARY} and {PAGE}", got, "making room, then --resume")
        report["stopped"] = str(stop)
        say_error(stop)


def _say(error: Exception, bar: Progress) -> None:
    if bar.shown:
        print(file=sys.stderr)
    say_error(error)
