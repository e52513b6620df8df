"""Scorers of published sequences: the papers' own rules, with frozen results in tests/fixtures/protocols."""

from __future__ import annotations

from moextend.bench.scorers import protocols
from moextend.bench.scorers.scorer import Scorer

PUBLISHED = (
    Scorer(
        "coin-scienceqa@1",
        'the prediction as a letter, its start before ". ", or its first word of one character',
        "CoIN",
        comparable_with="CoIN rows",
        item=protocols.coin_scienceqa,
        lettered=True,
    ),
    Scorer(
        "equal@1",
        "a gold answer but for case",
        "CoIN, MCITlib",
        comparable_with="CoIN and UCIT rows",
        item=protocols.equal,
    ),
    Scorer(
        "coin-gqa@1",
        "the gold as written; the prediction in lower case without final periods",
        "CoIN",
        comparable_with="CoIN rows",
        item=protocols.coin_gqa,
    ),
    Scorer(
        "coin-ocrvqa@1",
        'a gold answer but for case; "Unanswerable" is wrong',
        "CoIN",
        comparable_with="CoIN rows",
        item=protocols.coin_ocrvqa,
    ),
    Scorer(
        "coin-imagenet@1",
        "the prediction contains the gold or lies in it, character by character",
        "CoIN",
        comparable_with="CoIN rows",
        item=protocols.coin_imagenet,
    ),
    Scorer(
        "coin-grounding@1",
        "1 where the IoU is above 0.5; the last digit of the prediction is not read",
        "CoIN",
        comparable_with="CoIN rows",
        item=protocols.coin_grounding,
        own_is_top=False,
    ),
    Scorer(
        "dcl-contains@1",
        "the prediction contains the gold but for case; one word next to a space, period or comma",
        "MLLM-CL",
        comparable_with="MLLM-CL rows",
        item=protocols.dcl_contains,
    ),
    Scorer(
        "dcl-medical@1",
        "the prediction contains the gold but for case",
        "MLLM-CL",
        comparable_with="MLLM-CL rows",
        item=protocols.dcl_medical,
    ),
    Scorer(
        "dcl-science@1",
        "equality for AI2D, TQA, VQA and SciVerse; MapQA by containment or the share of states named",
        "MLLM-CL",
        comparable_with="MLLM-CL rows",
        items=protocols.dcl_science,
        by_image=True,
    ),
    Scorer(
        "dcl-finance@1",
        "the gold but for case, spaces and periods of the prediction",
        "MLLM-CL",
        comparable_with="MLLM-CL rows",
        item=protocols.dcl_finance,
    ),
    Scorer(
        "trace-equal@1",
        "the gold as it is",
        "TRACE",
        comparable_with="TRACE rows",
        item=protocols.trace_equal,
    ),
    Scorer(
        "trace-scienceqa@1",
        "the first character of the gold",
        "TRACE",
        comparable_with="TRACE rows",
        item=protocols.trace_scienceqa,
    ),
    Scorer(
        "trace-rouge@1",
        "F1 of the union of longest common subsequences of sentences, over distinct words",
        "TRACE (rouge 1.0.1)",
        comparable_with="TRACE rows",
        item=protocols.trace_rouge,
    ),
    Scorer(
        "trace-py150@1",
        "difflib ratio in whole percent, literals such as <STR_LIT:x> resolved first",
        "TRACE (fuzzywuzzy)",
        comparable_with="TRACE rows",
        item=protocols.trace_py150,
    ),
)
