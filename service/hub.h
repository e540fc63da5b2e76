/* hub: the agents: who is enrolled, who is connected, what goes to them and what comes back.
 *
 * A clone (5.1) is found by the highest boot and the instance, which are remembered in the store; no channel is accepted for that agent id until a person has
 * decided (`reset-service release`). Connections that have not greeted cannot keep agents out: at their limit the oldest goes.
 * The hub greets (proto/README.md 5.1), keeps one channel an agent, verifies every result with the agent's enrolled key and hands it on; what it means is
 * the business of operations. All on the loop. */
#ifndef SERVICE_HUB_H
#define SERVICE_HUB_H

#include <event2/event.h>

#include "proto/messages.h"
#include "service/http.h"
#include "service/keys.h"
#include "service/settings.h"
#include "service/store.h"
#include "service/turned_away.h"

/* How far the clocks of agents and service may be apart (proto/README.md 4, 5.1). */
#define CLOCK_SKEW_S 60

struct hub;
struct session;
struct task;

struct agent {
	struct agent *next;
	struct hub *hub;
	struct agent_row row;
	struct jose_key *decryption;
	struct jose_keys *verifiers;    /* its one signing key */
	struct jose_keys *former;       /* those that it had before: nothing is believed that they sign */
	bool key_used;                  /* something came that is signed by the present key: who signs by a former one now is somebody else */
	int64_t greeted_us;             /* monotonic: the last good hello */
	bool rekeying;                  /* new keys are on their way to the store */
	char signing_kid[JOSE_KID_SIZE];
	char former_decryption_kid[JOSE_KID_SIZE]; /* what a portal encrypted to it is still good for */
	int64_t former_until;           /* seconds */
	struct session *session;        /* NULL: not connected; else greeted */
	bool draining;                  /* takes nothing new */
	int64_t ended_us;               /* monotonic: when its last channel ended so that the agent saw it too; 0: it fell silent, and the agent may not know */
	bool boot_unrecorded;           /* row.boot and row.instance_id are not in the store yet, and nobody was welcomed by them */
	bool clone_unrecorded;          /* row.clone_seen_at is not in the store yet */
	struct turned_away turned_away; /* channels closed before they were let in whose hello named this agent, right or wrong */
	struct hello hello;             /* of the present or last session */
	unsigned on_wire;               /* requests sent on this session that have no final result: counted by operations */
	unsigned queued;                /* operations bound to it that are not sent yet: likewise */
	struct task *again;             /* of those that go to it once more, the one that has waited longest: likewise, within a sweep */
	uint64_t chosen;                /* the turn in which it was chosen last: likewise */
};

struct hub_callbacks {
	void (*ready)(struct agent *agent, void *arg);  /* greeted: deliver again, then the new */
	void (*lost)(struct agent *agent, void *arg);   /* the channel is gone or superseded */
	/* A verified result from this agent. */
	void (*result)(struct agent *agent, const struct result *result, void *arg);
	void *arg;
};

enum status hub_new(struct event_base *base, const struct settings *settings, const struct keys *keys, struct database *database, struct hub **ret_hub) MUST_USE;
void hub_set_callbacks(struct hub *hub, const struct hub_callbacks *callbacks);
/* Every session must have ended (hub_close_all). */
void hub_free(struct hub *hub);

/* Adds agents that are new in `rows`, revokes those that are revoked there (4001) and releases those that were released there after a clone had been seen. False where one's keys cannot be used: that is logged, the others are taken. */
bool hub_update(struct hub *hub, const struct agent_rows *rows);
/* Revokes one in memory: closes its channel with 4001. */
void hub_revoke(struct hub *hub, const char *agent_id, int64_t now);
struct agent *hub_agents(struct hub *hub);
struct agent *hub_find(struct hub *hub, const char *agent_id);
unsigned hub_connected(const struct hub *hub);

/* By which thumbprint `secrets` (JWEs by thumbprint) has one for this agent: that of its key, or of the one that it replaced a moment ago, since a portal may have asked before. NULL: none. */
const char *hub_secret_kid(const struct agent *agent, const json_t *secrets);

/* The handler of GET /v1/agent: checks the upgrade and greets. */
void hub_upgrade(struct hub *hub, struct exchange *exchange);

/* To a connected agent. */
enum status hub_send(struct agent *agent, const char *frame) MUST_USE;
void hub_acknowledge(struct agent *agent, const char *request_id);

/* New keys: the key set goes to everyone connected. */
void hub_set_keys(struct hub *hub, const struct keys *keys);
/* Tells all agents to drain; they take nothing new. */
void hub_drain(struct hub *hub, const char *reason);
/* Closes all channels with this code; hub_sessions falls to 0 within seconds. */
void hub_close_all(struct hub *hub, unsigned close_code, const char *reason);
/* Connections that are WebSockets, greeted or not. */
unsigned hub_sessions(const struct hub *hub);

#endif
