"""Which sample every row of every tensor belongs to, followed through a forward pass.

`rows` is what is known of one tensor. How operations change it: `aligned` those that compute along some axes and treat
the others alike, `shapes` those that rearrange or combine axes, `routing` those that index, sort, pack or scatter by
the data; `names` are those that need no rule of their own. `follow` applies them. What none of them knows ends the
knowledge: parameters that meet such rows are measured one sample at a time.
"""

from forgetless.measure.engine.provenance.follow import follow, name_of
from forgetless.measure.engine.provenance.names import writes
from forgetless.measure.engine.provenance.rows import BLANK, Rows, begin, lost, note, rows_of

__all__ = ["BLANK", "Rows", "begin", "follow", "lost", "name_of", "note", "rows_of", "writes"]
