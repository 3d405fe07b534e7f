"""The Croissant description of a build: its files, its columns with their types, where it comes from.

Format: Croissant 1.1, http://mlcommons.org/croissant/1.1. The shards are a file set, for which the format asks no
checksums; single files carry theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..core.shards import write_json

PARQUET = "application/x-parquet"
# As the format's first appendix gives it; readers warn of any other.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
# Page, authors and citation of the datasets that there are readers for.
ORIGINS: dict[str, dict[str, Any]] = {
    "mead": {
        "url": "https://wywu.github.io/projects/MEAD/MEAD.html",
        "authors": "Kaisiyuan Wang, Qianyi Wu, Linsen Song, Zhuoqian Yang, Wayne Wu, Chen Qian, Ran He, Yu Qiao, "
        "Chen Change Loy",
        "title": "MEAD: A Large-scale Audio-visual Dataset for Emotional Talking-face Generation",
        "where": "ECCV",
        "year": 2020,
    },
    "hdtf": {
        "url": "https://github.com/MRzzm/HDTF",
        "authors": "Zhimeng Zhang, Lincheng Li, Yu Ding, Changjie Fan",
        "title": "Flow-guided One-shot Talking Face Generation with a High-resolution Audio-visual Dataset",
        "where": "CVPR",
        "year": 2021,
    },
    "voxceleb2": {
        "url": "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox2.html",
        "authors": "Joon Son Chung, Arsha Nagrani, Andrew Zisserman",
        "title": "VoxCeleb2: Deep Speaker Recognition",
        "where": "Interspeech",
        "year": 2018,
    },
}


def write_croissant(out: Path, info: Mapping[str, Any], schema: pa.Schema) -> None:
    """Writes `croissant.json`.

    Args:
        out: the build's folder; shards and rejects are in it already.
        info: the build's description, see `meta/info.json`.
        schema: columns of the shards.
    """
    rejects = info["paths"]["rejects"]
    data = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"{info['dataset']}-talking-faces",
        "description": f"{info['counts']['rows']} clips of talking faces at {info['fps']} frames a second, one row a "
        "clip, with features per frame; built from "
        + (f"the dataset {info['dataset']}." if info["dataset"] in ORIGINS else "a folder of recordings."),
        "version": f"{info['schema_version']}.0.0",
        "dateCreated": info["created"],
        "datePublished": info["created"],
        "keywords": ["talking head", "audio-visual speech", "emotion"],
        **_origin(info),
        "distribution": [
            _file_set("shards", PARQUET, "data/*/*.parquet"),
            _file_set("videos", "video/mp4", "videos/**/*.mp4"),
            *(_file(out, name, kind) for name, kind in _single_files(rejects).items() if (out / name).is_file()),
        ],
        "recordSet": [
            _records("clips", schema, {"fileSet": {"@id": "shards"}}, "clip_id", _descriptions(info, schema)),
            *([_rejects(out, rejects)] if (out / rejects).is_file() else []),
        ],
    }
    write_json(out / "croissant.json", data)


def _origin(info: Mapping[str, Any]) -> dict[str, Any]:
    """Where the recordings come from and what to cite. A build adds no terms of its own to theirs."""
    dataset = info["dataset"]
    origin = ORIGINS.get(dataset)
    if origin is None:
        note = f"built by TalkForge {info['talkforge_version']}, digest {info['digest'][:16]}"
        return {
            "url": "README.md",
            "license": _terms("the recordings", None),
            "creator": [
                {"@type": "sc:Organization", "name": "the owner of the recordings, whom the build does not know"}
            ],
            "citeAs": f"@misc{{{dataset}, title={{Talking faces from a folder of recordings}}, note={{{note}}}}}",
        }
    authors = origin["authors"].split(", ")
    year, title = origin["year"], origin["title"]
    return {
        "url": origin["url"],
        "license": _terms(f"the dataset {dataset}", origin["url"]),
        "creator": [{"@type": "sc:Person", "name": name} for name in authors],
        "citeAs": f"@inproceedings{{{dataset}{year}, title={{{title}}}, author={{{' and '.join(authors)}}}, "
        f"booktitle={{{origin['where']}}}, year={{{year}}}}}",
        "isBasedOn": origin["url"],
    }


def _terms(what: str, url: str | None) -> dict[str, Any]:
    work = {"@type": "sc:CreativeWork", "name": f"terms of {what}"}
    text = f"The terms of {what} hold for this build, which adds none of its own."
    return work | {"description": text} | ({"url": url} if url else {})


def _single_files(rejects: str) -> dict[str, str]:
    """Files beside the shards and what they are. `meta/info.json` is written after this description."""
    meta = {f"meta/{name}.json": "application/json" for name in ("splits", "stats")}
    return {rejects: PARQUET, **meta, "README.md": "text/markdown"}


def _file(out: Path, name: str, encoding: str) -> dict[str, Any]:
    content = (out / name).read_bytes()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{len(content)} B",
        "encodingFormat": encoding,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _file_set(name: str, encoding: str, includes: str) -> dict[str, Any]:
    return {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": encoding, "includes": includes}


def _rejects(out: Path, path: str) -> dict[str, Any]:
    return _records("rejects", pq.read_schema(out / path), {"fileObject": {"@id": path}}, "clip_id", {})


def _records(
    name: str, schema: pa.Schema, source: Mapping[str, Any], key: str, descriptions: Mapping[str, str]
) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{field.name}",
            "name": field.name,
            **({"description": descriptions[field.name]} if field.name in descriptions else {}),
            **_value_type(field.type),
            "source": {**source, "extract": {"column": field.name}},
        }
        for field in schema
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "key": {"@id": f"{name}/{key}"}, "field": fields}


def _descriptions(info: Mapping[str, Any], schema: pa.Schema) -> dict[str, str]:
    """What the extractor of a column says of itself; the longest id wins where one begins with another."""
    prefixes = sorted((f"{one['id'].replace('-', '_')}_", one["what"]) for one in info["extractors"])
    return {name: what for prefix, what in prefixes for name in schema.names if name.startswith(prefix)}


def _value_type(kind: pa.DataType) -> dict[str, Any]:
    """Data type and, for lists, shape; a list of unknown length is -1 long."""
    shape: list[int] = []
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size if pa.types.is_fixed_size_list(kind) else -1)
        kind = kind.value_type
    array = {"isArray": True, "arrayShape": ",".join(map(str, shape))} if shape else {}
    return {"dataType": _atom(kind), **array}


def _atom(kind: pa.DataType) -> str:
    if pa.types.is_floating(kind):
        return f"cr:Float{kind.bit_width}"
    if pa.types.is_integer(kind):
        return f"cr:{'Int' if pa.types.is_signed_integer(kind) else 'UInt'}{kind.bit_width}"
    return "sc:Boolean" if pa.types.is_boolean(kind) else "sc:Text"
