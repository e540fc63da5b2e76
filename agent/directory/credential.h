/* credential: the password (or the key, where a keytab or a certificate binds) that the agent binds with, and whose turn it is to try it. A wrong password is tried at most once a minute over all servers together, so that
 * the agent never locks its own account; until a bind has succeeded only one is under way at a time. */
#ifndef AGENT_DIRECTORY_CREDENTIAL_H
#define AGENT_DIRECTORY_CREDENTIAL_H

#include "base/secret.h"

enum { CREDENTIAL_PAUSE_S = 60, CREDENTIAL_BINDS_MAX = 2 };
struct credential {
	const char *file;          /* borrowed; NULL: there is no password */
	struct secret password;
	unsigned binds;            /* under way */
	bool proven, stale;        /* stale: the file is read again before the next try */
	int64_t blocked_until_us;  /* monotonic */
	char reason[256];          /* why it was refused last, in words; "": it was not */
};
enum credential_turn { CREDENTIAL_GO, CREDENTIAL_WAIT, CREDENTIAL_BLOCKED };

/* Reads the file; an empty password is refused: a server takes it for an anonymous bind (RFC 4513 5.1.2). */
enum status credential_read(struct credential *credential) MUST_USE;
/* An administrator asks: the file is read again and the password tried at once. */
void credential_retry(struct credential *credential);
/* CREDENTIAL_GO is given back by credential_report. */
enum credential_turn credential_take(struct credential *credential, int64_t now_us);
/* How the bind ended; anything but STATUS_OK and STATUS_DIRECTORY_CREDENTIAL says nothing about the password. */
void credential_report(struct credential *credential, enum status status, int64_t now_us);

#endif
