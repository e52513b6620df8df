"""General scorers by name and version; a changed rule gets a new version."""

from __future__ import annotations

from moextend.bench.scorers import boxes, captions, options, rules, texts, transcripts
from moextend.bench.scorers.gold import Scorer, mean_of


def _rate(name: str, rate: transcripts.ErrorRate, rule: str, *, comparable_with: str) -> Scorer:
    """Scorer of an error rate, as accuracy: higher is better."""
    unit = "character" if rate.characters else "word"
    return Scorer(
        name,
        rule,
        "jiwer; Whisper's normaliser",
        comparable_with=comparable_with,
        item=rate.item,
        metrics=rate.metrics,
        weight=rate.weight,
        shows=f"{unit} accuracy: 100 - {rate.name.upper()}, errors of an item counted up to its length",
    )


GENERAL = (
    Scorer(
        "exact@1",
        "a gold answer but for case, outer spaces and final periods",
        "GQA",
        comparable_with="GQA rows of LLaVA and lmms-eval",
        item=rules.exact,
    ),
    Scorer(
        "vqa@1",
        "leave-one-out mean of min(1, matches / 3); punctuation, numbers, articles and contractions are normalised "
        "where the annotators do not all agree",
        "VQA evaluation code",
        comparable_with="the official VQAv2 evaluation of raw answers; no published row of an LMM",
        item=rules.vqa,
    ),
    Scorer(
        "vqa@2",
        "leave-one-out mean of min(1, matches / 3); prediction and answers are always normalised",
        "lmms-eval (VQA evaluation code)",
        comparable_with="VQAv2 rows of lmms-eval, and of LLaVA, which submits normalised answers",
        item=rules.vqa2,
        metrics=mean_of("vqa@1", rules.vqa),
    ),
    Scorer(
        "evalai@1",
        "leave-one-out mean of min(1, matches / 3) after the EvalAI form, always",
        "EvalAI (TextVQA code)",
        comparable_with="TextVQA and VizWiz rows of LLaVA and lmms-eval; CoIN TextVQA",
        item=rules.evalai,
    ),
    Scorer(
        "letter@1",
        '"A", "A. ..." or "The answer is A."; all else is wrong',
        "ScienceQA (LLaVA code)",
        comparable_with="ScienceQA rows of LLaVA",
        item=rules.letter,
        lettered=True,
    ),
    Scorer(
        "option@1",
        'the letter in any usual dress ("(a)", "a:", "Answer: A"), or the text of the right choice alone',
        "this project",
        comparable_with="none",
        item=rules.option,
        lettered=True,
    ),
    Scorer(
        "option@4",
        'the letter in any usual dress ("**B**", "Option B", "Answer: B", "答えはB"), or the text of the right choice '
        "and no other; a conclusion or a last line goes before the first letter; lists of options are not read",
        "VLMEvalKit, extended",
        comparable_with="multiple-choice rows of VLMEvalKit, where it needs no judge",
        item=options.option,
        metrics=mean_of("option@1", rules.option),
        lettered=True,
    ),
    Scorer(
        "circular@4",
        "option@4 on every rotation of a question (ids equal modulo 1,000,000); right only if all are",
        "MMBench, VLMEvalKit",
        comparable_with="MMBench rows of VLMEvalKit, where it needs no judge",
        items=captions.circular,
        lettered=True,
    ),
    Scorer(
        "pope@2",
        'first sentence without commas: "no" with the word No, no or not, else "yes"; also precision, recall, F1 and '
        "the share of yes",
        "POPE (LLaVA code)",
        comparable_with="POPE rows: LLaVA's table has the mean F1 of the three sets",
        item=rules.pope,
        metrics=captions.yes_no,
        spoken=rules.spoken,
    ),
    Scorer(
        "mme@1",
        '"yes" or "no" alone or in the first four characters, "y" or "n"; all else is wrong',
        "MME (lmms-eval code)",
        comparable_with="none: papers report the sum of accuracies and pair accuracies",
        item=rules.mme,
    ),
    Scorer(
        "relaxed@1",
        "within 5% of the target, % as hundredths; else, and for a target of 0, the same text",
        "ChartQA",
        comparable_with="ChartQA rows (relaxed accuracy)",
        item=rules.relaxed,
    ),
    Scorer(
        "anls@1",
        "1 - edit distance / longer length, lower-case, the best answer; 0 below 0.5",
        "DocVQA",
        comparable_with="DocVQA and InfographicVQA rows (ANLS)",
        item=rules.anls,
    ),
    Scorer(
        "iou@1",
        "intersection over union with the best gold box",
        "RefCOCO",
        comparable_with="none: papers count boxes, they do not average the IoU",
        item=boxes.iou,
    ),
    Scorer(
        "grounding@2",
        "1 where the intersection over union is 0.5 or above",
        "lmms-eval",
        comparable_with="accuracy at 0.5 of lmms-eval's RefCOCO",
        item=boxes.grounding,
    ),
    Scorer(
        "cider@1",
        "CIDEr-D, 100 x mean; PTB-like tokens, document frequency from the references of all scored items",
        "COCO caption evaluation",
        comparable_with="CIDEr rows of COCO captions and Flickr30k",
        items=captions.cider_d,
        top=captions.TOP,
        own_is_top=False,
    ),
    Scorer(
        "rouge-l@1",
        "F1 of the longest common subsequence of words, no stemming, the best reference",
        "rouge-score",
        comparable_with="ROUGE-L of rouge-score; not that of TRACE",
        item=texts.rouge_l,
    ),
    Scorer(
        "sari@1",
        "mean of F1 kept, precision deleted, F1 added n-grams (n = 1..4), the question as source; 0/0 = 1",
        "Xu et al. 2016 (reference code as in Hugging Face evaluate)",
        comparable_with="SARI of Hugging Face evaluate, TRACE 20Minuten",
        items=texts.sari,
        own_is_top=False,
    ),
    Scorer(
        "f1@1",
        "F1 of the words without case, punctuation and articles, repeated words counted; the best answer",
        "SQuAD",
        comparable_with="F1 rows of SQuAD and its followers",
        item=texts.f1,
    ),
    _rate(
        "wer@1",
        transcripts.WER,
        "word accuracy, 1 - errors / reference words, at least 0 an item; Whisper's basic form; rates as metrics",
        comparable_with="its metric wer: WER after Whisper's basic form (lmms-eval, other languages than English)",
    ),
    _rate(
        "wer-en@1",
        transcripts.WER_ENGLISH,
        "wer@1 after Whisper's English form: numbers as digits, no contractions; British spellings stay",
        comparable_with="its metric wer: WER after Whisper's English form (Whisper, lmms-eval), spellings apart",
    ),
    _rate(
        "cer@1",
        transcripts.CER,
        "character accuracy, as wer@1; spaces between words are characters",
        comparable_with="its metric cer: CER after Whisper's basic form, spaces counted",
    ),
)
