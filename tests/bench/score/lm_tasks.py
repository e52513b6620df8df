"""lm-eval tasks on local files, as YAML."""


def generation(name: str, data: str, text: str, target: str, tokens: int) -> str:
    """A task of greedy answers up to a full stop.

    Args:
        data: file in the task's folder.
        text, target: templates of the prompt and of the right answer.
        tokens: of an answer at most.
    """
    return f"""
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: "{{folder}}/{data}"}}
test_split: test
output_type: generate_until
doc_to_text: "{text}"
doc_to_target: "{target}"
generation_kwargs: {{until: ["."], max_gen_toks: {tokens}, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1}}
"""
