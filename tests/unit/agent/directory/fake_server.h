/* fake_server: an LDAPS server on the test's own loop that answers as it is told: one domain, one user (of either flavor), and every way to misbehave. */
#ifndef TESTS_FAKE_SERVER_H
#define TESTS_FAKE_SERVER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

enum fake_reaction { FAKE_ANSWER, FAKE_SILENT, FAKE_CLOSE, FAKE_WRONG_TAG, FAKE_GARBAGE, FAKE_HUGE, FAKE_MALFORMED, FAKE_NO_TAG, FAKE_NO_OPERATION, FAKE_NOTICE };
struct fake_server;
struct fake {
	struct fake_server *server;
	char name[32];             /* "localhost:port" */
	bool no_tls;               /* accepts TCP and says nothing */
	bool stalled;              /* reads, and answers nothing */
	bool dribble;              /* one byte a record, a record a turn */
	unsigned selves;           /* what a search for the agent's own account finds: nobody, or the user, and others */
	bool read_only, unsynchronized, has_control, other_pso;
	bool partial_policy;       /* the domain's minimum age may not be read */
	unsigned matches;          /* what a search for a user finds */
	int bind_result, modify_result, user_result, policy_result;
	const char *text;          /* diagnostic of modify */
	enum fake_reaction on_search, on_user_read, on_modify;
	unsigned connections, binds, modifies, reads; /* modifies: and extended operations */
	unsigned certified_binds;  /* on a connection whose client has shown a certificate */
	uint8_t modified[512];     /* the last modify as it came */
	int modified_size;
};

/* Makes root.pem, and the servers' certificate for localhost and 127.0.0.1, in `folder`. */
void fake_certificates(const char *folder);
void fake_start(struct fake *fake, struct event_base *base, const char *folder);
void fake_stop(struct fake *fake);
/* How many times longer everything may take: SLOWNESS in the environment (valgrind), or 1. */
int64_t fake_slowness(void);
/* Closes every open connection. */
void fake_hang_up(struct fake *fake);

#endif
