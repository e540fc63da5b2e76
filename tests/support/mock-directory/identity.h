/* identity: the texts of GUIDs and SIDs. Pure. */
#ifndef MOCK_DIRECTORY_IDENTITY_H
#define MOCK_DIRECTORY_IDENTITY_H

#include "values.h"

/* 32 hexadecimal digits of the octets as they are, or the dashed form, whose first three fields are little-endian in the octets (MS-DTYP 2.3.4). */
bool guid_from_text(struct value text, uint8_t guid[16]);
/* "S-1-5-…"; the size of the SID, 0 where it is none. */
size_t sid_from_text(struct value text, uint8_t sid[28]);
bool octets_from_hex(const char *in, size_t count, uint8_t *out);

#endif
