/* store: the service's SQLite tables, as jobs for base/database. Each job says which argument it takes; the argument belongs to the caller
 * and must live until its `done`. Run them with database_submit on the loop, with database_run in a command line or at the start.
 *
 * No secret is in here: of tickets and API keys there is the SHA-256; of passwords nothing but, until the outcome is final, a
 * hash by a key of its own; an operation's request frame, whose
 * password only the agent can decrypt, and the same password encrypted to the agents that may be asked instead, are removed (secure_delete) once the outcome is final. */
#ifndef SERVICE_STORE_H
#define SERVICE_STORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/database.h"

/* Opens store.sqlite in the directory. `base` NULL for command lines. */
enum status store_open(struct event_base *base, const char *directory, struct database **ret_database, char **ret_why) MUST_USE;

/* Agents ---------------------------------------------------------------------------------------------------------------------------- */
struct agent_row {
	char agent_id[UUID_SIZE];
	char *name, *software;              /* software may be NULL */
	char *signing_key, *decryption_key; /* public JWKs, JSON text */
	int64_t enrolled_at, revoked_at, last_seen; /* seconds; 0: never */
	int64_t boot;                       /* the highest that was seen, and the installation that had it; 0 and "": none yet */
	char instance_id[UUID_SIZE];
	int64_t clone_seen_at;              /* 0: not, or released */
	bool ended;                         /* its last channel ended so that the agent saw it too */
	bool connected;                     /* as the service has recorded it: since last_seen; after a crash until the next start */
	char *former_keys;                  /* JSON array, the newest first, at most 16: {"replaced_at", "signing_key": JWK or null, "decryption_key": thumbprint or null} */
};
void agent_row_clear(struct agent_row *row);

struct agent_rows { struct agent_row *items; size_t count; };
void agent_rows_clear(struct agent_rows *rows);
/* arg: struct agent_rows *, filled: all of them, the revoked too, by name. */
enum status store_agents(sqlite3 *db, void *arg);

struct store_enrollment {
	uint8_t ticket[32];
	int64_t now;
	struct agent_row agent;
	bool accepted;                      /* out: false where the ticket is unknown, used or expired, or the signing key is known already */
};
/* arg: struct store_enrollment *. The ticket is used up and the agent added in one transaction. */
enum status store_enroll(sqlite3 *db, void *arg);

struct store_agent_change {
	char agent_id[UUID_SIZE];
	int64_t now;
	char *software;                     /* or NULL */
	int64_t boot;
	char instance_id[UUID_SIZE];
	bool connected, ended;
	bool found;                         /* out */
};
/* arg: struct store_agent_change *. */
enum status store_agent_revoke(sqlite3 *db, void *arg);
/* last_seen, software, boot, instance_id, connected, ended. */
enum status store_agent_seen(sqlite3 *db, void *arg);
/* boot, instance_id. */
enum status store_agent_boot(sqlite3 *db, void *arg);
struct store_agent_rekey {
	char agent_id[UUID_SIZE];
	int64_t now;
	char *old_signing_key, *old_decryption_kid; /* JWK and thumbprint that are in force */
	char *signing_key, *decryption_key; /* public JWKs; NULL: it stays */
	bool accepted;                      /* out: false where a key is or was another's or its own already, or the agent is revoked, stopped, or has other keys by now */
};
/* arg: struct store_agent_rekey *. The old ones go to former_keys in the same transaction. */
enum status store_agent_rekey(sqlite3 *db, void *arg);
struct store_start {
	const char *host;                   /* its name */
	int64_t booted_ms;                  /* clock_booted_ms() */
};
/* arg: const struct store_start *. At the service's start no agent is connected. Where the host has run on since the last start, its kernel has ended the channels of a service that was killed, and the
 * agents have seen that. Where it has not, nothing is known of how any channel ended. */
enum status store_agents_gone(sqlite3 *db, void *arg);
/* clone_seen_at. */
enum status store_agent_clone(sqlite3 *db, void *arg);
/* A person has decided: whoever connects next is the agent. Not found where no clone was seen. */
enum status store_agent_release(sqlite3 *db, void *arg);

/* Tickets and API keys -------------------------------------------------------------------------------------------------------------- */
struct store_ticket { uint8_t hash[32]; int64_t now, expires; };
/* arg: const struct store_ticket * */
enum status store_ticket_add(sqlite3 *db, void *arg);
struct ticket_hashes { int64_t now; uint8_t (*items)[32]; size_t count; };
/* arg: struct ticket_hashes *, `items` filled with malloc'ed memory: those that are good now, at most 1,000. */
enum status store_tickets(sqlite3 *db, void *arg);

struct store_api_key {
	uint8_t hash[32];
	const char *name;
	int64_t now;
	bool found;                         /* out. add: false where the name is taken; revoke: where there is no such key; check: where none has this hash */
};
/* arg: struct store_api_key * */
enum status store_api_key_add(sqlite3 *db, void *arg);
enum status store_api_key_revoke(sqlite3 *db, void *arg);
enum status store_api_key_check(sqlite3 *db, void *arg);
/* arg: json_t **, gets an array of {name, created_at, revoked_at}. */
enum status store_api_keys(sqlite3 *db, void *arg);

/* arg: int64_t *: PRAGMA data_version, which changes when another process has written. */
enum status store_version(sqlite3 *db, void *arg);
/* arg: uint8_t[32]: this database's random key for content hashes; made at the first call. */
enum status store_hash_key(sqlite3 *db, void *arg);

/* Operations ------------------------------------------------------------------------------------------------------------------------ */
struct operation_row {
	char operation_id[UUID_SIZE];
	char op[16];
	char *subject;                      /* JSON text */
	uint8_t content[32];                /* keyed hash of what the caller sent, less the password */
	bool has_secret;                    /* the two below are there: never once the outcome is final */
	uint8_t secret_key[32], secret_hash[32]; /* a key of this operation alone, and the hash of the password by it */
	int64_t created_ms, finished_ms;
	char status[16];                    /* "pending", "settling" or an outcome's name */
	char code[48];                      /* "" while pending */
	char *answer;                       /* JSON object with what the agent said besides; or NULL */
	char agent_id[UUID_SIZE];           /* "" without an agent */
	char request_id[UUID_SIZE];
};
void operation_row_clear(struct operation_row *row);
/* As GET /v1/operations/{id} shows it; a new reference. */
json_t *operation_row_json(const struct operation_row *row);

struct request_row {
	char request_id[UUID_SIZE];
	char operation_id[UUID_SIZE];
	char agent_id[UUID_SIZE];
	int64_t created_ms, expires;        /* expires in seconds */
	uint8_t frame_sha256[32];
	char *frame;                        /* NULL once final */
};
void request_row_clear(struct request_row *row);

/* Another agent that may be asked where the first is lost. */
#define MAX_SPARES 2
struct spare_row {
	char agent_id[UUID_SIZE];           /* "": none */
	char *jwe;                          /* NULL where the operation has no secret */
};

struct store_create {
	const struct operation_row *operation;
	const struct request_row *request;  /* NULL where no request is made (no agent) */
	struct spare_row spares[MAX_SPARES]; /* borrowed */
	bool exists;                        /* out: an operation of this id stands already: nothing was written, it is in `existing` */
	struct operation_row existing;      /* out */
};
/* arg: struct store_create *. */
enum status store_operation_create(sqlite3 *db, void *arg);

struct store_attempt {
	const struct request_row *request;
	bool former_unsent;                 /* the request that the operation was bound to has not left this service */
};
/* arg: const struct store_attempt *: one more attempt of its operation, which is bound to it now; its agent is no spare one any more. STATUS_LOCAL_INPUT where the operation is finished. */
enum status store_request_add(sqlite3 *db, void *arg);

struct store_finish {
	char operation_id[UUID_SIZE];
	char request_id[UUID_SIZE];         /* the request whose answer this is; "" for the service's own verdict */
	char agent_id[UUID_SIZE];
	char status[16], code[48];
	char *answer;                       /* or NULL */
	int64_t now_ms;
	bool final;                         /* false: settling */
	bool changed;                       /* out: the operation has this outcome now, or the one that follows from all its attempts */
	bool known;                         /* out: request_id is a request to this agent */
	bool mismatch;                      /* out: no outcome for such an operation: nothing was recorded */
	bool waits;                         /* out: recorded, but the operation waits for the last word of another attempt: it is bound to `open` now */
	struct request_row open;            /* out */
	struct operation_row row;           /* out, where it changed or waits */
};
void store_finish_clear(struct store_finish *finish);
/* arg: struct store_finish *. The rules of proto/README.md section 7: `applied` by any attempt decides, even after another outcome. Any other word ends the operation
 * only once every attempt that may have been sent has had its last one, so that nothing is called refused that another attempt may have done.
 * The first final outcome stands but for that, and for service.no_answer. */
enum status store_operation_finish(sqlite3 *db, void *arg);

struct store_find { char operation_id[UUID_SIZE]; bool found; struct operation_row row; };
/* arg: struct store_find *. */
enum status store_operation_find(sqlite3 *db, void *arg);

/* arg: const int64_t *: forgets finished operations created before this (milliseconds), at most 1,000 a job. */
enum status store_operations_forget(sqlite3 *db, void *arg);

struct operation_rows { int64_t limit; struct operation_row *items; size_t count; };
void operation_rows_clear(struct operation_rows *rows);
/* arg: struct operation_rows *: the newest first. */
enum status store_operations(sqlite3 *db, void *arg);

struct open_operation { struct operation_row operation; struct request_row request; struct spare_row spares[MAX_SPARES]; };
struct open_operations { struct open_operation *items; size_t count; };
void open_operations_clear(struct open_operations *rows);
/* arg: struct open_operations *: those without a final outcome, the oldest first. */
enum status store_operations_open(sqlite3 *db, void *arg);

#endif
