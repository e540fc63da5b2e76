/* replication: what two servers of one domain tell each other of their accounts: password with history, pwdLastSet, lockoutTime, each with its record in replPropertyMetaData;
 * and the same in a file, for a server that is killed and started again. */
#ifndef MOCK_DIRECTORY_REPLICATION_H
#define MOCK_DIRECTORY_REPLICATION_H

#include <jansson.h>

#include "forest.h"

/* A new array of the accounts of which anything was written, or came, behind this local USN. */
json_t *replication_changes(const struct forest *forest, uint64_t usn);
/* One of them: an attribute is taken where its record beats the one that is here (MS-ADTS 3.1.1.1.9: version, then time in seconds, then invocationId). How many were; -1: not understood. */
int replication_take(struct forest *forest, json_t *account);
void replication_hex(const uint8_t *octets, size_t size, char *out);

struct state;
/* Reads what the file holds and goes on behind it. NULL: said on stderr. */
struct state *state_open(struct forest *forest, const char *path);
/* Writes what was changed since. `state` may be NULL. */
void state_keep(struct state *state);
void state_close(struct state *state);

#endif
