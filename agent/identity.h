/* identity: who this agent is and whom it trusts: the files of the state directory.
 *
 *     identity.json    agent_id, issuer, the pinned root key, instance_id, thumbprints of its own keys, and how far a rotation of them has come
 *     signing.THUMBPRINT.jwk, decryption.THUMBPRINT.jwk    its private keys (key_file.h)
 *     key-set.jws      the service's key set as last seen
 *
 * identity.json is written as one, durably, and says alone which keys count: a key file is written before identity.json names it, and destroyed after it does not any
 * more; what a crash left over in between is destroyed at the next start.
 *
 * A rotation (proto/README.md 5.3) in that order, so that a crash at any moment leaves an agent that can greet:
 *
 *     1. both new key files are written; 2. identity.json names them as next; 3. the service is told, as often as it takes, signed by the present key
 *     4. it confirms, or welcomes a hello by the next pair: identity.json names the next pair as the present one and the old decryption key as retired
 *     5. the old signing key's file is destroyed; 6. an hour later, also over restarts, the retired one leaves identity.json; 7. its file is destroyed
 *
 * Between 3 and 4 only the service knows which pair is in force. The hello is by the present pair until the service has refused that (1008), then by the next one, and
 * so on in turns; whose turn it is is durable before the hello goes out, so that a pair that the service has dropped is not shown to it again.
 *
 * Not being enrolled is a valid state. On the loop's thread; the files are written on another. */
#ifndef AGENT_IDENTITY_H
#define AGENT_IDENTITY_H

#include "base/worker.h"
#include "proto/messages.h"

#define IDENTITY_RETIRED 4
#define IDENTITY_OVERLAP_S 3600
/* For jose_decrypt: present, next, retired and a NULL. */
#define IDENTITY_DECRYPTION_KEYS (IDENTITY_RETIRED + 3)

struct identity_pair {
	struct jose_key *signing, *decryption; /* NULL: none */
	int64_t made_at;                /* seconds */
	bool first;                     /* its turn to greet */
};

/* On the loop's thread. */
typedef void (*identity_done)(enum status status, void *arg);

struct identity {
	bool enrolled;
	char agent_id[UUID_SIZE];
	char instance_id[UUID_SIZE];
	char *issuer;
	char *name;
	struct jose_key *root;
	struct jose_key *signing, *decryption;
	int64_t made_at;                /* of these two, seconds */
	struct identity_pair next;      /* of a rotation that is under way */
	struct identity_pair making;    /* becomes `next` as soon as it is on disk */
	struct {
		struct jose_key *key;   /* NULL: none */
		int64_t until;
	} retired[IDENTITY_RETIRED];    /* decryption keys */
	struct secret wrap_key;         /* for the key files; empty: they are plain */
	bool unwritten;                 /* what is on disk is not what is here: identity_save */
	bool turn_unwritten;            /* whose turn it is is being written: no hello before that has ended */
	bool key_set_unwritten;
	struct key_set key_set;         /* keys NULL: none yet */
	char *key_set_jws;
	int64_t key_set_floor;          /* the highest version ever seen */
	int64_t boot;                   /* how often the agent was started with this state */
	char *folder;                   /* the state directory; NULL: kept in memory only (tests) */
	struct {
		struct worker *worker;  /* borrowed; where files are written. NULL: at once, in the call (tests, and where no loop runs) */
		bool writing, replacing, again;
		struct identity_waiter *waiting, *flying;
		int error;              /* errno of the last write that failed */
	} store;
};

/* Makes the folder (0700) where it is missing and reads it. STATUS_OK also where not enrolled. STATUS_LOCAL_PERMISSION for a wrong owner or mode,
 * STATUS_LOCAL_TRUST for files that do not belong together or where one is missing, STATUS_LOCAL_INPUT for damaged ones, STATUS_LOCAL_CONFIG where key files are wrapped and `wrap_key_file` (NULL: none)
 * is not what they were wrapped with; `why` gets a sentence. */
enum status identity_load(const char *folder, const char *wrap_key_file, struct identity *ret_identity, char *why, size_t capacity) MUST_USE;
/* One agent a state directory: *ret_fd holds the lock as long as it is open. STATUS_LOCAL_SYSTEM where another program holds it. */
enum status identity_lock(const struct identity *identity, int *ret_fd, char *why, size_t capacity) MUST_USE;
void identity_clear(struct identity *identity);

/* All that follows changes what is here at once, except where it says something else, and writes it on `store.worker`'s thread: a disk may take seconds. `done` fires once it is durable, or could not be
 * written (STATUS_LOCAL_SYSTEM; identity_describe_unwritten): within the call where there is no worker, and with STATUS_LOCAL_INPUT where another agent was enrolled meanwhile. The same `done`
 * with the same `arg` waits once, however often it is given: whoever owns the channel may give it without end while a disk hangs. */
/* Rotation, steps 1 and 2: `next` is there when `done` says STATUS_OK; otherwise nothing has begun. STATUS_LOCAL_INPUT, and no `done`, where one is under way already or IDENTITY_RETIRED of them were
 * finished within the hour. */
enum status identity_begin_rotation(struct identity *identity, int64_t now_s, identity_done done, void *arg) MUST_USE;
/* Steps 4 and 5. STATUS_LOCAL_INPUT, and no `done`, where none is under way. In force also where it cannot be written (`unwritten`): a restart finds out again which pair counts. */
enum status identity_finish_rotation(struct identity *identity, int64_t now_s, identity_done done, void *arg) MUST_USE;
/* Whose turn it is to greet: the next pair's or the present one's. No `done` where it is so already. */
void identity_set_turn(struct identity *identity, bool next, identity_done done, void *arg);
/* Steps 6 and 7, where it is time; no `done` where it is not. */
void identity_drop_retired(struct identity *identity, int64_t now_s, identity_done done, void *arg);
/* Writes what is here and destroys the key files that it does not name. */
void identity_save(struct identity *identity, identity_done done, void *arg);
/* A sentence: which folder, why, and what to do. */
void identity_describe_unwritten(const struct identity *identity, char *text, size_t capacity);
void identity_decryption_keys(const struct identity *identity, struct jose_key *ret_keys[IDENTITY_DECRYPTION_KEYS]);

/* A key set as the service showed it: verified with the root, its version not below the floor, the same version with the same bytes. Becomes the key set in
 * force and is written to the folder. *ret_changed: it is another one than before. STATUS_LOCAL_TRUST or STATUS_LOCAL_INPUT otherwise. `done` where it has changed. */
enum status identity_adopt_key_set(struct identity *identity, struct bytes jws, int64_t now_s, bool *ret_changed, identity_done done, void *arg) MUST_USE;
/* True while there is a key set and it has not expired. */
bool identity_trusts(const struct identity *identity, int64_t now_s);

/* Enrolment in two steps: keys are made and kept in memory until the service has answered. */
struct enrolment {
	char *issuer;
	char *name;
	struct jose_key *root;
	struct jose_key *signing, *decryption;
};
enum status enrolment_begin(const char *issuer, const json_t *root_key, const char *name, const char *ticket, int64_t now_s,
                            struct enrolment *ret_enrolment, char **ret_jws) MUST_USE;
struct enrolment_answer {
	const char *agent_id, *key_set;
};
/* Verifies the key set with the root that was pinned at the beginning: STATUS_LOCAL_TRUST or STATUS_LOCAL_INPUT, and no `done`. Else everything is written, and `identity` is the new one when `done` says
 * STATUS_OK, and what it was otherwise. */
enum status enrolment_finish(struct enrolment *enrolment, struct identity *identity, const struct enrolment_answer *answer, int64_t now_s, identity_done done, void *arg) MUST_USE;
void enrolment_clear(struct enrolment *enrolment);

#endif
