"""GSM8K (Cobbe et al., arXiv:2110.14168): word problems for school; a solution ends in a line `#### 5`.

Rows: {"question": text, "answer": solution ending in "#### 5"}, optionally "id" and "messages" (turns that are asked
instead of the question).
"""

from __future__ import annotations

import re

from prmkit.data.jsonl import id_field, text_field
from prmkit.data.types import Prompt
from prmkit.errors import DataError
from prmkit.tasks.asking import Format, ask, worked
from prmkit.tasks.columns import row_columns
from prmkit.tasks.rows import Row

MARK = "####"
_CALCULATOR = re.compile(r"<<[^<>]*>>")


def read_problem(row: Row, form: Format) -> tuple[Prompt, str | None]:
    """The prompt and its worked solution in this format (None if the row has only the answer line).

    Calculator annotations such as <<2*3=6>> are removed. Raises DataError for a row of another form.
    """
    solution, mark, answer = text_field(row.fields, "answer", row.where).rpartition(MARK)
    solution, answer = _CALCULATOR.sub("", solution).strip(), answer.strip()
    if not mark or not answer or "\n" in answer:
        raise DataError(
            f"{row.where}: field 'answer' must end in a line such as '#### 5'; "
            'for bare answers set task.name = "math" instead'
        )
    question = "" if "messages" in row.fields else text_field(row.fields, "question", row.where)
    name = id_field(row.fields, row.where, row.name)
    meta = row_columns(row.fields)
    prompt = Prompt(id=name, messages=ask(row, question, form), answer=answer, task="gsm8k", meta=meta)
    if not solution:
        return prompt, None
    return prompt, worked(row, solution, answer, form, plain_ending=f"\n{MARK} {answer}")
