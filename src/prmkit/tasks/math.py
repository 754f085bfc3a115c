r"""Mathematical questions with an answer that math-verify compares, such as MATH (Hendrycks et al., arXiv:2103.03874).

Rows: {"question" or "problem": text, "answer": text or number}, optionally "solution" (a worked one, from whose last
\boxed{} the answer is taken if there is no field for it), "id" and "messages" (turns that are asked instead).
"""

from __future__ import annotations

from prmkit.data.jsonl import id_field, text_field
from prmkit.data.types import Prompt
from prmkit.errors import DataError
from prmkit.tasks.asking import Format, ask, worked
from prmkit.tasks.columns import row_columns, task_hint
from prmkit.tasks.rows import Row
from prmkit.verify.answers import extract_answer


def read_problem(row: Row, form: Format) -> tuple[Prompt, str | None]:
    """The prompt and its worked solution in this format (None if the row has none).

    Raises DataError for a row without question or answer.
    """
    fields, where = row.fields, row.where
    key = "problem" if "problem" in fields and "question" not in fields else "question"
    if key not in fields and "messages" not in fields and (hint := task_hint(fields)):
        raise DataError(f"{where}: no field 'question' or 'problem'{hint}")
    question = "" if "messages" in fields else text_field(fields, key, where)
    solution = text_field(fields, "solution", where).strip() if fields.get("solution") is not None else None
    answer = _answer(row, solution)
    name, meta = id_field(fields, where, row.name), row_columns(fields, ("question", "problem"))
    prompt = Prompt(id=name, messages=ask(row, question, form), answer=answer, task="math", meta=meta)
    if solution is None:
        return prompt, None
    ending = "" if "\\boxed{" in solution else f"\nThe answer is \\boxed{{{answer}}}."
    return prompt, worked(row, solution, answer, form, plain_ending=ending)


def _answer(row: Row, solution: str | None) -> str:
    value = row.fields.get("answer")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if value is not None:
        return text_field(row.fields, "answer", row.where)
    boxed = extract_answer(solution) if solution and "\\boxed{" in solution else None
    if boxed is None:
        raise DataError(
            f"{row.where}: field 'answer' is missing or null, and no 'solution' has a \\boxed{{}}; add it or remove the line"
            f"{task_hint(row.fields)}"
        )
    return boxed
