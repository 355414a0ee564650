"""Which sample every row of every tensor belongs to, followed through a forward pass.

`rows` is what is known of one tensor, `shapes` and `routing` how operations change it: `shapes` those that rearrange or
combine axes, `routing` those that index, sort, pack or scatter by the data. `follow` applies them. What none of them
knows ends the knowledge: parameters that meet such rows are measured one sample at a time.
"""

from forgetless.measure.engine.provenance.follow import follow, name_of
from forgetless.measure.engine.provenance.rows import ANYWHERE, Rows, begin, lost, note, rows_of

__all__ = ["ANYWHERE", "Rows", "begin", "follow", "lost", "name_of", "note", "rows_of"]
