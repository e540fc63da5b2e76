/* connection: one LDAPS connection to one server: found by name, connected, verified, bound, looked at, ready; lost, and made again after a pause.
 * Inside it: operations, each with its own deadline, matched by message id. Internal to agent/directory. */
#ifndef AGENT_DIRECTORY_CONNECTION_H
#define AGENT_DIRECTORY_CONNECTION_H

#include <openssl/ssl.h>
#include <sys/queue.h>

#include "agent/directory/credential.h"
#include "agent/directory/flavor.h"
#include "agent/directory/kerberos.h"
#include "agent/directory/ldap_io.h"
#include "agent/directory/policy_cache.h"
#include "base/resolve.h"

struct connection;
enum connection_state { CONNECTION_DOWN, CONNECTION_RESOLVE, CONNECTION_CONNECT, CONNECTION_BIND_TURN, CONNECTION_BIND, CONNECTION_EXPLORE, CONNECTION_READY };

enum pdc_role { PDC_UNKNOWN, PDC_IS_NOT, PDC_IS };

/* Shared by the connections of a directory; borrowed. */
struct connection_setup {
	struct event_base *base;
	const struct flavor *flavor;
	const struct directory_settings *settings;
	SSL_CTX *const *tls;                                     /* the directory's of now */
	struct credential *credential;
	struct kerberos *kerberos;                               /* NULL: the mechanism needs none */
	struct policy_cache *policies;
	bool retry;                                              /* connect again after a loss */
	/* On the loop. `changed`: ready, or down (why is in failure). `room`: an operation ended. `turn`: a bind ended, another may begin. */
	void (*changed)(struct connection *connection, void *arg);
	void (*room)(struct connection *connection, void *arg);
	void (*turn)(void *arg);
	void *arg;
};

struct reply {
	enum status status;        /* STATUS_OK: answered, see ldap_result; directory.timeout, directory.unavailable, agent.internal, and what a change's still_wanted says: it was not */
	bool sent;                 /* at least its first byte was encrypted and written */
	int ldap_result;           /* -1: no answer */
	const char *diagnostic;    /* NULL: none; borrowed, as the entries */
	LDAP *ldap;
	LDAPMessage **entries;     /* `count` of them */
	size_t count;
	struct bytes server_token; /* of a SASL bind, or what an extended operation answers; data NULL: none */
	bool truncated;            /* there were more than the search keeps */
	bool referred;             /* a part of the tree is held by another server, which is not asked */
	LDAPControl **controls;    /* of the answer; NULL: none; borrowed */
};
typedef void (*operation_done)(const struct reply *reply, void *arg);

enum operation_kind { OPERATION_SEARCH, OPERATION_CHANGE, OPERATION_BIND, OPERATION_WHO_AM_I };
struct operation {
	TAILQ_ENTRY(operation) link;
	struct connection *connection;
	enum operation_kind kind;
	struct ldap_search search;
	char *dn;
	struct change *change;
	const char *mechanism;     /* of a bind; constant */
	struct berval *credential; /* likewise; borrowed until it is encoded */
	bool at_once;              /* what it borrows does not wait in a queue */
	bool submitted;
	bool passed;               /* the point where it is with the kernel; see base/crash.h */
	bool left;                 /* by operations_judge: it had been sent when the connection was lost */
	bool timed_out;            /* the one whose deadline gave the connection up */
	int message_id;
	uint64_t start;            /* io.written before it */
	int64_t submitted_us;
	struct event *timer;
	LDAPMessage **entries;
	size_t count, capacity, octets; /* octets: of all of them, LDAP_IO_INCOMING_MAX at most */
	bool truncated, referred;
	operation_done done;
	void *arg;
};
TAILQ_HEAD(operations, operation);

struct connection {
	unsigned references;
	struct connection_setup setup;
	char *host;                /* as configured: what the certificate must show */
	unsigned port;
	char name[256];            /* host, with the port where it is not 636: for answers and logs */
	struct directory *owner;   /* NULL once it is gone */
	enum connection_state state, reached; /* reached: how far the last attempt came */
	unsigned generation;       /* counts the times that it became ready */
	bool retiring;             /* takes nothing new, closes when it is empty */
	bool stopped;
	enum status failure;       /* of the last attempt; STATUS_OK before any */
	char why[256];
	unsigned attempts;         /* in a row, failed */
	int64_t started_us;        /* the last attempt */

	struct resolve *resolve;
	struct addresses addresses;/* of the last lookup that found any: they are used again while DNS is silent */
	size_t address;
	struct bufferevent *bufferevent;
	struct ldap_io io;
	LDAP *ldap;
	struct event *timer;       /* state's deadline, pause before the next attempt, idle probe */
	int64_t last_read_us;
	struct operations waiting, outstanding;
	unsigned waiting_count, outstanding_count;
	bool has_turn;             /* counted in credential->binds */
	struct negotiation *negotiation; /* of a bind by Kerberos; NULL: none */
	bool bind_complete, bind_succeeded; /* what SASL, what the server says */
	size_t binding_size;       /* of the channel binding that was sent; 0: none */
	unsigned exploring;        /* reads of the exploration not answered yet */

	struct tls_peer *peer;     /* NULL before the handshake */
	struct root_facts root;
	struct server_facts server;
	char self_name[512];       /* as whom it is bound; "": not known */
	struct sid self[2];        /* whom the agent's own name may mean */
	enum pdc_role pdc;         /* whether it is the domain's PDC emulator, as it says itself */
	unsigned self_count;       /* 0: unknown */
	struct sid domain;         /* size 0: unknown */
	struct token token;        /* as bound */
	bool token_asked;          /* of the account itself, where the rootDSE tells none */
	int64_t clock_skew_ms;     /* INT64_MIN: unknown */
};

enum status connection_new(const struct connection_setup *setup, const char *server, struct directory *owner, struct connection **ret_connection) MUST_USE;
struct connection *connection_ref(struct connection *connection);
void connection_unref(struct connection *connection);
/* Begins to connect where it is down; nothing otherwise. */
void connection_start(struct connection *connection);
/* For good: operations fail with directory.unavailable from here, no callback of the setup fires any more. */
void connection_stop(struct connection *connection);
/* For a connection that waits for its turn to bind. */
void connection_try_bind(struct connection *connection);
/* Tears it down; operations fail, the next attempt is planned. */
void connection_fail(struct connection *connection, enum status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* For a flavor, while `connection` stands. */
struct view connection_view(const struct connection *connection);
static inline bool connection_usable(const struct connection *connection) { return connection->state == CONNECTION_READY && !connection->retiring; }
/* It is retiring, and empty: connection_retire ends it. */
static inline bool connection_is_over(const struct connection *connection) { return connection->state == CONNECTION_READY && connection->retiring && connection->outstanding_count == 0; }
void connection_retire(struct connection *connection);
static inline unsigned connection_load(const struct connection *connection) { return connection->waiting_count + connection->outstanding_count; }

/* Operations wait in the connection's own queue where `pipeline` are outstanding. Failing at once returns the status and `done` does not fire. */
enum status operation_search(struct connection *connection, struct ldap_search *take_search, int64_t timeout_ms, operation_done done, void *arg, struct operation **ret_operation) MUST_USE;
/* A modify of `dn`, or the extended operation that `take_change` is. */
enum status operation_change(struct connection *connection, const char *dn, struct change *take_change, int64_t timeout_ms, operation_done done, void *arg,
                             struct operation **ret_operation) MUST_USE;
/* `mechanism` NULL: simple, the password is `credential`. A `credential` whose data is NULL is left out. Both are encoded before the call returns. */
enum status operation_bind(struct connection *connection, const char *dn, const char *mechanism, struct bytes credential, int64_t timeout_ms, operation_done done, void *arg) MUST_USE;
/* RFC 4532: as whom the connection is bound. */
enum status operation_who_am_i(struct connection *connection, int64_t timeout_ms, operation_done done, void *arg) MUST_USE;
/* `done` will not fire; its answer, if one comes, is dropped. */
void operation_cancel(struct operation *operation);
/* A base search with constant attributes, for the many reads of one entry. */
enum status operation_read(struct connection *connection, const char *dn, const char *const *attributes, int64_t timeout_ms, operation_done done, void *arg,
                           struct operation **ret_operation) MUST_USE;
/* Called by connection.c: bytes have come; the connection is about to be torn down (its output still is there); it is gone. */
void operations_receive(struct connection *connection);
/* With crash points only: what was made has gone to the kernel. */
void operations_pass_sent(struct connection *connection);
void operations_judge(struct connection *connection);
void operations_fail_all(struct connection *connection);

/* Called by connection.c after the bind: reads rootDSE, the server's own entry, the agent's own account and the domain's head, then makes it ready. */
void explore_begin(struct connection *connection);
/* Asks the rootDSE and the domain's head of a ready connection: for the clock, for whose role it is, and to see whether it lives. */
void explore_probe(struct connection *connection, int64_t timeout_ms);
/* bind.c. Called by connection.c: binds by the configured mechanism and ends in connection_bound or connection_fail; what is under way is forgotten. */
void bind_begin(struct connection *connection);
void bind_abandon(struct connection *connection);
bool bind_waits_for_kdc(const struct connection *connection);
void bind_realm(const struct connection *connection, char *out, size_t capacity);
/* "simple", "GSSAPI" … */
const char *bind_name(enum bind_mechanism mechanism);
bool bind_by_kerberos(enum bind_mechanism mechanism);
/* The name by which the agent's own account is looked for; false where only the server knows it. */
bool bind_self(const struct connection *connection, char *out, size_t capacity);
/* Called by bind.c. */
void connection_bound(struct connection *connection);
/* Called by explore.c. */
void connection_become_ready(struct connection *connection);

#endif
