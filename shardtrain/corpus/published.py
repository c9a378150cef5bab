"""The published sets this package knows: what their folders are called, their classes and sizes, where they are.

Recognising one only decides how backslashes are read, so a set is recognised by what `fetch` wrote into its folder, by
the folder's name or by its class names, and by the last two only where the number of classes agrees. Row counts are
those of Zhang, Zhao and LeCun (2015) and, for imdb, of Maas et al. (2011). Checksums are as others recorded them: of
the archives at these addresses and, in `also`, of those that the authors of the sets gave out themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RECORD = ".fetched.json"  # in a folder that `fetch` made: what it holds and where that came from

_FAST_AI = "https://s3.amazonaws.com/fast-ai-nlp"
_ZHANG = (
    "Xiang Zhang, Junbo Zhao, Yann LeCun. Character-level Convolutional Networks for Text Classification. "
    "Advances in Neural Information Processing Systems 28 (NIPS 2015)."
)
_LEHMANN = (
    "Jens Lehmann et al. DBpedia - A Large-scale, Multilingual Knowledge Base Extracted from Wikipedia. "
    "Semantic Web Journal 6(2), 167-195, 2015."
)
_MCAULEY = (
    "Julian McAuley, Jure Leskovec. Hidden factors and hidden topics: understanding rating dimensions with review "
    "text. RecSys 2013."
)
_MAAS = (
    "Andrew L. Maas, Raymond E. Daly, Peter T. Pham, Dan Huang, Andrew Y. Ng, Christopher Potts. Learning Word Vectors "
    "for Sentiment Analysis. ACL 2011."
)
_YELP_LICENCE = "terms of the Yelp Dataset Challenge: academic, non-commercial"
_AMAZON_LICENCE = "none stated; reviews from Amazon, collected for research"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The archive (a tar file packed with gzip) in which a set is published.

    Attributes:
        url: where it is.
        num_bytes: its size.
        checksum: `sha256:` or `md5:` and the digest in hexadecimal; empty where none is known.
        unpacked_bytes: what all in it takes on a disk, roughly; one of more than twice of that is refused.
        also: checksums of other archives of the same set, which are as good.
        members: files that are unpacked, seen from the folder that they are in; a star stands for part of a name.
    """

    url: str
    num_bytes: int
    checksum: str
    unpacked_bytes: int
    also: tuple[str, ...] = ()
    members: tuple[str, ...] = ("train.csv", "test.csv", "classes.txt", "readme.txt")

    @property
    def file_name(self) -> str:
        """The last part of its address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A published set.

    Attributes:
        name: short name; also what a folder of it is called.
        title: what people call it.
        num_classes: classes in the labels.
        num_train: rows of the training split.
        num_test: rows of the test split.
        unescape: whether its text spells newlines and quotes as backslash-n and backslash-quote.
        archive: where it is published.
        licence: what its publisher allows, in a few words.
        citation: the papers to cite.
        folder_names: other names its folder is known by.
        class_names: lines of its classes.txt; empty where it has none or they say nothing.
    """

    name: str
    title: str
    num_classes: int
    num_train: int
    num_test: int
    unescape: bool
    archive: Archive
    licence: str
    citation: str
    folder_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


DATASETS = (
    Dataset(
        name="ag_news",
        title="AG News",
        num_classes=4,
        num_train=120_000,
        num_test=7_600,
        unescape=True,
        archive=Archive(
            url=f"{_FAST_AI}/ag_news_csv.tgz",
            num_bytes=11_784_419,
            checksum="md5:2c2d85915f1ca34b29e754ce3b403c81",
            unpacked_bytes=32_000_000,
        ),
        licence="research and other non-commercial use",
        citation=_ZHANG,
        folder_names=("agnews",),
        class_names=("World", "Sports", "Business", "Sci/Tech"),
    ),
    Dataset(
        name="amazon_full",
        title="Amazon Review Full",
        num_classes=5,
        num_train=3_000_000,
        num_test=650_000,
        unescape=True,
        archive=Archive(
            url=f"{_FAST_AI}/amazon_review_full_csv.tgz",
            num_bytes=643_695_014,
            checksum="md5:289723722b64d337a40f809edd29d0f0",
            unpacked_bytes=1_700_000_000,
            also=("md5:57d28bd5d930e772930baddf36641c7c",),
        ),
        licence=_AMAZON_LICENCE,
        citation=f"{_ZHANG} {_MCAULEY}",
        folder_names=("amazon_review_full", "amazon_reviews_full"),
    ),
    Dataset(
        name="amazon_polarity",
        title="Amazon Review Polarity",
        num_classes=2,
        num_train=3_600_000,
        num_test=400_000,
        unescape=True,
        archive=Archive(
            url=f"{_FAST_AI}/amazon_review_polarity_csv.tgz",
            num_bytes=688_339_454,
            checksum="sha256:d2a3ee7a214497a5d1b8eaed7c8d7ba2737de00ada3b0ec46243983efa100361",
            unpacked_bytes=1_800_000_000,
            also=("md5:fe39f8b653cada45afd5792e0f0e8f9b",),
        ),
        licence=_AMAZON_LICENCE,
        citation=f"{_ZHANG} {_MCAULEY}",
        folder_names=("amazon_review_polarity", "amazon_reviews_polarity"),
    ),
    Dataset(
        name="dbpedia",
        title="DBPedia",
        num_classes=14,
        num_train=560_000,
        num_test=70_000,
        unescape=False,
        archive=Archive(
            url=f"{_FAST_AI}/dbpedia_csv.tgz",
            num_bytes=68_341_743,
            checksum="sha256:42db5221ddedddb673a4cabcc5f3a7d869714c878bcfe4ba94b29d14aa38e417",
            unpacked_bytes=200_000_000,
            also=("md5:dca7b1ae12b1091090db52aa7ec5ca64",),
        ),
        licence="CC BY-SA 3.0 and GFDL",
        citation=f"{_ZHANG} {_LEHMANN}",
        folder_names=("dbpedia14", "dbpedia_14"),
        class_names=(
            "Company",
            "EducationalInstitution",
            "Artist",
            "Athlete",
            "OfficeHolder",
            "MeanOfTransportation",
            "Building",
            "NaturalPlace",
            "Village",
            "Animal",
            "Plant",
            "Album",
            "Film",
            "WrittenWork",
        ),
    ),
    Dataset(
        name="imdb",
        title="IMDb",
        num_classes=2,
        num_train=25_000,
        num_test=25_000,
        unescape=False,
        archive=Archive(
            url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            num_bytes=84_125_825,
            checksum="sha256:c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
            unpacked_bytes=350_000_000,  # of many small files
            members=("train/neg/*.txt", "train/pos/*.txt", "test/neg/*.txt", "test/pos/*.txt", "README"),
        ),
        licence="none stated; for research",
        citation=_MAAS,
        folder_names=("aclimdb",),
    ),
    Dataset(
        name="sogou_news",
        title="Sogou News",
        num_classes=5,
        num_train=450_000,
        num_test=60_000,
        unescape=True,
        archive=Archive(
            url=f"{_FAST_AI}/sogou_news_csv.tgz",
            num_bytes=384_269_937,
            checksum="sha256:6b77fc935561d339b82aa552d7e31ea59eff492a494920579b3ce70604efb5c2",
            unpacked_bytes=1_500_000_000,
            also=("md5:0c1700ba70b73f964dd8de569d3fd03e",),
        ),
        licence="none stated; from the SogouCA and SogouCS corpora, for research",
        citation=_ZHANG,
        class_names=("sports", "finance", "entertainment", "automobile", "technology"),
    ),
    Dataset(
        name="yahoo_answers",
        title="Yahoo! PredictionWriter",
        num_classes=10,
        num_train=1_400_000,
        num_test=60_000,
        unescape=True,
        archive=Archive(
            url=f"{_FAST_AI}/yahoo_answers_csv.tgz",
            num_bytes=319_476_345,
            checksum="sha256:2d4277855faf8b35259009425fa8f7fe1888b5644b47165508942d000f4c96ae",
            unpacked_bytes=850_000_000,
            also=("md5:f3f9899b997a42beb24157e62e3eea8d",),
        ),
        licence="terms of Yahoo! Webscope: research, non-commercial",
        citation=_ZHANG,
        class_names=(
            "Society & Culture",
            "Science & Mathematics",
            "Health",
            "Education & Reference",
            "Computers & Internet",
            "Sports",
            "Business & Finance",
            "Entertainment & Music",
            "Family & Relationships",
            "Politics & Government",
        ),
    ),
    Dataset(
        name="yelp_full",
        title="Yelp Review Full",
        num_classes=5,
        num_train=650_000,
        num_test=50_000,
        unescape=True,
        archive=Archive(
            url=f"{_FAST_AI}/yelp_review_full_csv.tgz",
            num_bytes=196_146_755,
            checksum="sha256:56006b0a17a370f1e366504b1f2c3e3754e4a3dda17d3e718a885c552869a559",
            unpacked_bytes=560_000_000,
            also=("md5:a4acce1892d0f927165488f62860cabe", "md5:f7ddfafed1033f68ec72b9267863af6c"),
        ),
        licence=_YELP_LICENCE,
        citation=_ZHANG,
        folder_names=("yelp_review_full", "yelp_reviews_full"),
    ),
    Dataset(
        name="yelp_polarity",
        title="Yelp Review Polarity",
        num_classes=2,
        num_train=560_000,
        num_test=38_000,
        unescape=True,
        archive=Archive(
            url=f"{_FAST_AI}/yelp_review_polarity_csv.tgz",
            num_bytes=166_373_201,
            checksum="sha256:528f22e286cad085948acbc3bea7e58188416546b0e364d0ae4ca0ce666abe35",
            unpacked_bytes=480_000_000,
            also=("md5:0f09b3af1a79c136ef9ca5f29df9ed9a", "md5:620c8ae4bd5a150b730f1ba9a7c6a4d3"),
        ),
        licence=_YELP_LICENCE,
        citation=_ZHANG,
        folder_names=("yelp_review_polarity", "yelp_reviews_polarity"),
    ),
)


def recognise(folder_name: str, class_names: Sequence[str] | None) -> Dataset | None:
    """Tell which published set a folder holds, by its name (whatever case, also with `_csv`) or its class names."""
    plain = folder_name.lower().replace("-", "_").removesuffix("_csv")
    for dataset in DATASETS:
        if class_names is not None and len(class_names) != dataset.num_classes:
            continue
        if plain in (dataset.name, *dataset.folder_names):
            return dataset
        if class_names is not None and dataset.class_names == tuple(class_names):
            return dataset
    return None


def recorded(folder: Path) -> Dataset | None:
    """Tell which published set `fetch` put into a folder, or None where it did not make the folder."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    name = found.get("name") if isinstance(found, dict) else None
    return next((dataset for dataset in DATASETS if dataset.name == name), None)
