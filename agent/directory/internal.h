/* internal: what directory.c (the whole, health), servers.c (the set of servers, choosing), discovery.c, names.c, call.c (the calls) and check.c share. */
#ifndef AGENT_DIRECTORY_INTERNAL_H
#define AGENT_DIRECTORY_INTERNAL_H

#include "agent/directory/discovery.h"
#include "agent/directory/servers.h"

/* What the directory goes by, learned from itself. */
enum { NAMES_MAX = 256 };
struct names {
	bool asking, known;
	int64_t learned_us;
	size_t count;
	char *items[NAMES_MAX];
};
TAILQ_HEAD(calls, directory_call);
TAILQ_HEAD(checks, check);
TAILQ_HEAD(verifications, verification);

struct directory {
	struct event_base *base;
	const struct directory_settings *settings;
	const struct flavor *flavor;
	const char **user_attributes; /* the flavor's, and the login attribute; NULL: the flavor's */
	SSL_CTX *tls;
	struct credential credential;
	struct kerberos *kerberos; /* NULL: the mechanism needs none */
	struct policy_cache policies;
	struct connection_setup setup;
	struct server *servers[SERVERS_MAX]; /* the preferred one first */
	unsigned server_count;
	struct discovery *discovery; /* NULL: they are listed */
	struct names names;
	struct calls calls;        /* all of them */
	struct calls queue;        /* those that wait for a connection */
	unsigned queued;
	struct checks checks;
	struct verifications verifications; /* all of them */
	unsigned verifying;        /* those that have a place */
	struct event *news;        /* pumps the calls and tells `changed`, from the loop's top level */
	struct directory_health told;
	void (*changed)(struct directory *directory, void *arg);
	void *changed_arg;
	struct sid domain;
	bool closing;
};

/* A usable connection with room, of `prefer` if that is up, else of the first server that is, and of `avoid` only where no other is up, never of `exclude`; NULL: none now. */
struct connection *directory_choose(struct directory *directory, const char *prefer, const char *avoid, const char *exclude);
/* A server that is not `exclude` is up or on its way. */
bool directory_can_reach_beside(const struct directory *directory, const char *exclude);
/* Whether another server than this connection's could be used. */
bool directory_has_other(const struct directory *directory, const struct connection *connection);
bool directory_has_usable(const struct directory *directory);
/* Every connection is down, none is on its way, and none was lost so recently that it is worth waiting for. */
bool directory_is_hopeless(const struct directory *directory);
/* Tries servers at once that are waiting for their next attempt. */
void directory_kick(struct directory *directory);
/* Why there is no server, as a code that may travel: directory.*. */
enum status directory_outage(const struct directory *directory);

/* call.c: starts what waits as far as there are connections, fails it where none can come. */
void calls_pump(struct directory *directory);
/* The end: every callback fires from here. */
void calls_end(struct directory *directory);
/* check.c: likewise; a bind has ended, another may begin. */
void checks_end(struct directory *directory);
void checks_try_bind(struct directory *directory);
/* Likewise; a round of lookups has ended. */
void checks_discovered(struct directory *directory);

/* names.c: asks this connection, unless they are configured or were learned not long ago. */
void names_learn(struct directory *directory, struct connection *connection);
void names_clear(struct directory *directory);

#endif
