/* descriptor: what nTSecurityDescriptor says of an object (MS-DTYP 2.4.6), made from the grants that forest_may goes by, so that both always agree. */
#ifndef MOCK_DIRECTORY_DESCRIPTOR_H
#define MOCK_DIRECTORY_DESCRIPTOR_H

#include "forest.h"

/* `parts`: the SD flags of the control, 0xf without one. Nothing is put where the viewer may not read all that was asked for: the audit list needs SeSecurityPrivilege, all else READ_CONTROL. */
void descriptor_put(struct forest *forest, struct object *who, struct object *object, unsigned parts, struct values *out);

/* Whether a descriptor of ours can deny that this attribute is read. */
bool descriptor_hides(const struct attribute_row *row);

#endif
