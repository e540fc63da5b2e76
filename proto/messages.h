/* messages: the payloads of proto/README.md as C structs; JSON in, JSON out, nothing else: no signatures, no clock, no policy.
 *
 * Parsing is strict about what the text requires and fails with STATUS_REQUEST_INVALID (requests) or STATUS_LOCAL_INPUT (the others) and
 * the name of the offending member in *ret_member (a static string; where the text is no JSON object "", "payload" for requests and "plaintext" for secrets). Parsed structs own their strings; free them by
 * their _clear function, which takes half-filled and cleared ones. Building returns a malloc'ed compact JSON text, NULL when memory is out. */
#ifndef PROTO_MESSAGES_H
#define PROTO_MESSAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/secret.h"
#include "base/status.h"
#include "proto/jose.h"

#define TYP_KEYS "wb-keys+jwt"
#define TYP_CHALLENGE "wb-challenge+jwt"
#define TYP_HELLO "wb-hello+jwt"
#define TYP_WELCOME "wb-welcome+jwt"
#define TYP_REQUEST "wb-request+jwt"
#define TYP_RESULT "wb-result+jwt"
#define TYP_ACK "wb-ack+jwt"
#define TYP_DRAIN "wb-drain+jwt"
#define TYP_ENROLL "wb-enroll+jwt"
#define TYP_REKEY "wb-rekey+jwt"
#define TYP_REKEY_PROOF "wb-rekey-proof+jwt"
#define TYP_REKEYED "wb-rekeyed+jwt"

#define MAX_FRAME_BYTES 65536
#define WEBSOCKET_SUBPROTOCOL "writeback.v1"

enum operation { OP_RESET, OP_UNLOCK, OP_CHECK, OP_CHANGE, OP_LOOKUP, OP_VERIFY, OP_POLICY, OP_COUNT };
const char *operation_name(enum operation op);
bool operation_from_name(const char *name, enum operation *ret_op);

/* Subject identifier, RFC 9493 ------------------------------------------------------------------------------------------------------ */
enum subject_format { SUBJECT_OBJECT_GUID, SUBJECT_CONSISTENCY_GUID, SUBJECT_UPN, SUBJECT_SAM, SUBJECT_ENTRY_UUID, SUBJECT_UID };
struct subject {
	enum subject_format format;
	char *id;         /* UUID text for the GUID formats and entryUUID */
	char *domain;     /* SUBJECT_SAM only, else NULL */
};
/* From the JSON object; strict (no other members). STATUS_REQUEST_INVALID otherwise. */
enum status subject_parse(const json_t *json, struct subject *ret_subject) MUST_USE;
json_t *subject_json(const struct subject *subject); /* new reference */
bool subject_equal(const struct subject *a, const struct subject *b);
void subject_clear(struct subject *subject);

/* The key set, 2.3 ------------------------------------------------------------------------------------------------------------------ */
struct key_set {
	char *issuer;
	int64_t iat, exp;
	int64_t version;
	struct jose_keys *keys;
};
enum status key_set_parse(struct bytes payload, struct key_set *ret_set, const char **ret_member) MUST_USE;
/* Verifies with the root, then parses. STATUS_LOCAL_TRUST where the root did not sign it, it is for another issuer, or (now > 0) it has expired; STATUS_LOCAL_INPUT if malformed. */
enum status key_set_verify(struct bytes jws, struct jose_key *root, const char *issuer, int64_t now, struct key_set *ret_set) MUST_USE;
char *key_set_build(const char *issuer, int64_t iat, int64_t exp, int64_t version, struct jose_key *const *keys, size_t count);
void key_set_clear(struct key_set *set);

/* The greeting, 5.1 ----------------------------------------------------------------------------------------------------------------- */
struct challenge {
	char *issuer;
	int64_t iat;
	char *nonce;
};
enum status challenge_parse(struct bytes payload, struct challenge *ret_challenge, const char **ret_member) MUST_USE;
char *challenge_build(const struct challenge *challenge);
void challenge_clear(struct challenge *challenge);

struct hello_directory {
	char *name;
	char *flavor;
};
struct hello {
	char *agent_id, *issuer;    /* iss, aud */
	int64_t iat;
	char *nonce, *agent_nonce;
	char *instance_id;
	int64_t boot;
	int version;
	char *software;
	struct hello_directory *directories;
	size_t directory_count;     /* at most 64 */
	unsigned operations;        /* bit 1 << enum operation; words not known are ignored when parsing */
	unsigned max_in_flight;
	char *decryption_key;
	char *next_signing_key;     /* NULL: none, or it is what signs */
};
enum status hello_parse(struct bytes payload, struct hello *ret_hello, const char **ret_member) MUST_USE;
char *hello_build(const struct hello *hello);
void hello_clear(struct hello *hello);

struct welcome {
	char *issuer, *agent_id;
	int64_t iat;
	char *nonce;
	char *session;
	unsigned max_frame_bytes;
};
enum status welcome_parse(struct bytes payload, struct welcome *ret_welcome, const char **ret_member) MUST_USE;
char *welcome_build(const struct welcome *welcome);
void welcome_clear(struct welcome *welcome);

struct drain {
	char *issuer, *audience;
	int64_t iat;
	char *session;
	char *reason;
};
enum status drain_parse(struct bytes payload, struct drain *ret_drain, const char **ret_member) MUST_USE;
char *drain_build(const struct drain *drain);
void drain_clear(struct drain *drain);

#define MAX_ACKS 256
struct ack {
	char *issuer, *agent_id;
	int64_t iat;
	char (*request_ids)[UUID_SIZE];
	size_t count;               /* 1 to MAX_ACKS */
};
enum status ack_parse(struct bytes payload, struct ack *ret_ack, const char **ret_member) MUST_USE;
char *ack_build(const struct ack *ack);
void ack_clear(struct ack *ack);

/* Enrolment, section 4 -------------------------------------------------------------------------------------------------------------- */
struct enroll {
	char *issuer;               /* aud */
	int64_t iat, exp;
	char *ticket;
	char *name;
	struct jose_key *signing_key, *decryption_key; /* public */
};
enum status enroll_parse(struct bytes payload, struct enroll *ret_enroll, const char **ret_member) MUST_USE;
char *enroll_build(const struct enroll *enroll);
void enroll_clear(struct enroll *enroll);

/* New keys of an agent, 5.3 --------------------------------------------------------------------------------------------------------- */
struct rekey {
	char *agent_id, *issuer;    /* iss, aud */
	int64_t iat;
	char *session;
	struct jose_key *signing_key, *decryption_key; /* public; one of them may be NULL: it stays */
	char *proof;                /* JWS by signing_key; NULL where that stays */
};
/* STATUS_LOCAL_INPUT also where there is neither key, or a signing key without a proof or the reverse. The proof itself: rekey_proven. */
enum status rekey_parse(struct bytes payload, struct rekey *ret_rekey, const char **ret_member) MUST_USE;
/* `proof` is made here: `signing_key` is private, or NULL. */
char *rekey_build(const struct rekey *rekey);
/* Whether who sent it holds signing_key: the proof is by it, and of this message. JOSE_OK also where the signing key stays. */
enum jose_reason rekey_proven(const struct rekey *rekey) MUST_USE;
void rekey_clear(struct rekey *rekey);

struct rekeyed {
	char *issuer, *agent_id;    /* iss, aud */
	int64_t iat;
	char *session;
	char *signing_key, *decryption_key; /* thumbprints of the keys in force */
};
enum status rekeyed_parse(struct bytes payload, struct rekeyed *ret_rekeyed, const char **ret_member) MUST_USE;
char *rekeyed_build(const struct rekeyed *rekeyed);
void rekeyed_clear(struct rekeyed *rekeyed);

/* A request, section 6 -------------------------------------------------------------------------------------------------------------- */
enum actor { ACTOR_SELF, ACTOR_ADMINISTRATOR };
/* From the JSON object; strict. STATUS_REQUEST_INVALID otherwise. *ret_id is the object's own, NULL for self. */
enum status actor_parse(const json_t *json, enum actor *ret_actor, const char **ret_id) MUST_USE;

struct request_claims {
	char *issuer;
	char *audience;
	char request_id[UUID_SIZE];  /* jti */
	char operation_id[UUID_SIZE];
	int64_t iat, exp;
	enum operation op;
	struct subject subject;
	char *secret;               /* compact JWE; NULL where the operation has none */
	bool must_change, unlock, enforce_policy;
	char *directory;            /* NULL: not named */
	enum actor actor;
	char *actor_id;             /* NULL for self */
	int64_t first_iat;          /* 0: first attempt */
	char *prior_server;         /* NULL: none */
	int64_t failover_after;     /* seconds; 0: another agent is not asked before exp */
};
/* Types, presence and form only; an `aud` array is STATUS_REQUEST_AUDIENCE, an unknown `op` STATUS_REQUEST_UNSUPPORTED; times, audience and permission are judged by the gate.
 * Even on failure request_id, operation_id and exp are filled where they could be read, so that the refusal can be addressed (else "" and 0). On STATUS_REQUEST_UNSUPPORTED
 * all the rest is filled too, with op OP_COUNT, so that audience and times can be judged first; it is cleared then as after success. A member that no row of section 6
 * has is named "unknown_member"; `secret` and `must_change` are also the names of the failure where the operation does not take them. */
enum status request_parse(struct bytes payload, struct request_claims *ret_request, const char **ret_member) MUST_USE;
char *request_build(const struct request_claims *request);
void request_claims_clear(struct request_claims *request);

/* The plaintext of a secret, 2.2. */
struct secret_claims {
	char operation_id[UUID_SIZE];
	enum operation op;
	struct subject subject;
	struct secret new_password; /* UTF-8; empty size 0 and data NULL where absent */
	struct secret old_password;
};
/* Parses without jansson keeping copies: what held a password is wiped. STATUS_REQUEST_UNDECRYPTABLE where malformed (with *ret_member);
 * (a password that cannot be one, half a surrogate pair or U+0000 in it, is named as such), STATUS_REQUEST_SECRET_MISMATCH where it is not for `request`. */
enum status secret_claims_parse(const struct secret *plaintext, const struct request_claims *request, struct secret_claims *ret_claims, const char **ret_member) MUST_USE;
/* The plaintext for a request, to be encrypted. Passwords may be empty ({0}) where absent. */
enum status secret_claims_build(const struct request_claims *request, struct bytes new_password, struct bytes old_password, struct secret *ret_plaintext) MUST_USE;
void secret_claims_clear(struct secret_claims *claims);

/* A result, section 7 --------------------------------------------------------------------------------------------------------------- */
enum rule_kind { RULE_MIN_LENGTH, RULE_COMPLEXITY, RULE_ACCOUNT_NAME, RULE_DISPLAY_NAME, RULE_MIN_AGE, RULE_HISTORY, RULE_HISTORY_OR_FILTER };
enum { CLASS_UPPER = 1, CLASS_LOWER = 2, CLASS_DIGIT = 4, CLASS_SPECIAL = 8, CLASS_OTHER = 16 };
struct rule {
	enum rule_kind kind;
	int64_t required;           /* min_length: characters; complexity: classes; min_age: seconds; history, history_or_filter: remembered */
	int64_t given;              /* min_length: characters; complexity: classes; min_age: possible_at, seconds since 1970 */
	unsigned missing;           /* complexity: CLASS_ bits */
};
#define MAX_RULES 8
enum { WARNING_PASSWORD_NOT_NFC = 1, WARNING_POLICY_NOT_ENFORCED = 2, WARNING_POLICY_UNREADABLE = 4, WARNING_MUST_CHANGE_NOT_SET = 8 };
enum stage { STAGE_VERIFY, STAGE_LOCATE, STAGE_DECRYPT, STAGE_INTENT, STAGE_WRITE, STAGE_RECORD, STAGE_TOTAL, STAGE_COUNT };

/* The end of year 9999, the last NumericDate that is taken: nothing overflows that is added to it. */
#define RESULT_TIME_MAX INT64_C(253402300799)
/* `account`: what a lookup tells. Strings may be NULL, times (seconds since 1970) 0 where not known or never. */
struct result_account {
	char *user_principal_name, *sam_account_name, *uid, *display_name;
	bool locked, disabled, expired, must_change, password_never_expires, cannot_change;
	int64_t password_last_set, password_expires_at;
};
/* `policy`: what a policy operation tells. RESULT_POLICY_UNKNOWN (also for a source of a later version): nothing else is said. */
enum result_policy_source { RESULT_POLICY_UNKNOWN, RESULT_POLICY_DOMAIN, RESULT_POLICY_PSO, RESULT_POLICY_SUBENTRY };
struct result_policy {
	enum result_policy_source source;
	int64_t min_length, history, min_age, max_age, lockout_threshold, lockout_duration;
	bool complexity, enforced;
	int64_t possible_at;        /* 0: at once */
};

struct result {
	char *agent_id, *issuer;    /* iss, aud */
	int64_t iat;
	char request_id[UUID_SIZE]; /* "" with frame_sha256 */
	char operation_id[UUID_SIZE];
	enum status code;           /* must have an outcome: it gives `status` */
	char *reason;               /* or NULL */
	struct rule rules[MAX_RULES];
	size_t rule_count;
	int64_t retry_after;        /* seconds; 0: absent */
	char user_guid[UUID_SIZE];  /* "": absent */
	bool user_is_entry;         /* user_guid is an entryUUID, not an objectGUID */
	struct result_account *account; /* NULL: absent; owned */
	struct result_policy *policy;   /* NULL: absent; owned */
	int was_locked;             /* -1 absent, 0, 1 */
	char *directory, *server;   /* NULL: absent */
	int ldap_result;            /* -1: absent */
	char *diagnostic;           /* or NULL; bounded to 512 bytes, valid UTF-8 */
	unsigned warnings;          /* WARNING_ bits */
	int64_t duration_us[STAGE_COUNT]; /* -1 absent; zero-initialized structs must be set by result_init */
	char frame_sha256[65];      /* "": absent */
};
void result_init(struct result *result);
/* A code or word that this program does not know (a newer agent) is STATUS_LOCAL_INPUT for `status`, but an unknown `code` is taken by its `status`:
 * applied -> ok, answered -> found where there is an account or a policy, else plausible, refused -> policy.rejected, failed -> agent.internal, unknown -> outcome.unknown; the word itself is kept in `reason`. Unknown rules and warnings are dropped. */
enum status result_parse(struct bytes payload, struct result *ret_result, const char **ret_member) MUST_USE;
char *result_build(const struct result *result);
void result_clear(struct result *result);
/* The `rules` array alone (new reference), as it stands in results and in the HTTP interface; and the array of warning words. */
json_t *rules_json(const struct rule *rules, size_t count);
json_t *warnings_json(unsigned warnings);
/* `account` and `policy`, likewise. */
json_t *account_json(const struct result_account *account);
json_t *policy_json(const struct result_policy *policy);

/* Helpers that everyone building messages needs. */
/* base64url of 32 random bytes: 43 characters and a NUL. */
#define NONCE_SIZE 44
void nonce_random(char out[NONCE_SIZE]);

#endif
