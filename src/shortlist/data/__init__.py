"""LOG -> DATASET. What users of the package need; the folders follow the flow.

kernels/      array kernels: the compiled core, or NumPy without it
store/        the dataset on disk: events, vocabularies, histories
read/         files of any layout to checked blocks of events
preparation/  blocks of events to a dataset; days appended to one
load/         a dataset to shuffled batches of training examples
guess/        a schema and reading options proposed for a log
check/        the report on a log
"""

from shortlist.data.check import LogReport, check_log
from shortlist.data.convert import convert_tables
from shortlist.data.findings import Finding
from shortlist.data.guess.schema import guess_schema
from shortlist.data.load.arrow_rows import ArrowRows
from shortlist.data.load.examples import ExampleSource, TrainingExamples
from shortlist.data.load.loader import Loader, Windowed
from shortlist.data.load.negatives import Negatives
from shortlist.data.load.options import ExampleOptions
from shortlist.data.preparation.append import append
from shortlist.data.preparation.prepare import prepare
from shortlist.data.read.file_format import FileFormat
from shortlist.data.read.inputs import LogFiles, ReadOptions
from shortlist.data.read.tfrecord.tables import read_tfrecord, write_tfrecord
from shortlist.data.schema import Feature, Schema
from shortlist.data.split import PARTS, TEST, TRAIN, VALIDATION, Split
from shortlist.data.store.dataset import Dataset, Part
from shortlist.data.store.history import Histories
from shortlist.data.store.vocabulary import Vocabulary

__all__ = [
    "ArrowRows",
    "Dataset",
    "ExampleOptions",
    "ExampleSource",
    "Feature",
    "FileFormat",
    "Finding",
    "Histories",
    "Loader",
    "LogFiles",
    "LogReport",
    "Negatives",
    "PARTS",
    "Part",
    "ReadOptions",
    "Schema",
    "Split",
    "TEST",
    "TRAIN",
    "TrainingExamples",
    "VALIDATION",
    "Vocabulary",
    "Windowed",
    "append",
    "check_log",
    "convert_tables",
    "guess_schema",
    "prepare",
    "read_tfrecord",
    "write_tfrecord",
]
