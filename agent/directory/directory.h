/* directory: one configured directory (an Active Directory domain) with its servers and connections, behind a vtable of flavors.
 *
 * Everything is asynchronous on the agent's loop; every call has a deadline and its callback fires exactly once, never from inside the call,
 * unless it is cancelled. One thread: the loop's.
 *
 * The way of one write:
 *     directory_locate()   finds the user and reads account, groups, policy and the server's position on one server -> struct located
 *     directory_recheck()  reads the same account again on the same connection, just before the write
 *     directory_write()    one modify on that same connection, answer mapped by table
 * A located user is bound to the server that it was read from: the write goes there or fails, and so does directory_verify(). */
#ifndef AGENT_DIRECTORY_DIRECTORY_H
#define AGENT_DIRECTORY_DIRECTORY_H

#include <event2/event.h>

#include "agent/account.h"
#include "base/secret.h"
#include "base/status.h"

/* As configured; borrowed for the life of the directory. */
enum directory_kind { DIRECTORY_ACTIVE_DIRECTORY, DIRECTORY_LDAP };
/* SASL GSSAPI and GSS-SPNEGO (RFC 4752, RFC 4178) from a keytab; EXTERNAL: the TLS client certificate (RFC 4513 5.2.3). */
enum bind_mechanism { BIND_SIMPLE, BIND_GSSAPI, BIND_GSS_SPNEGO, BIND_EXTERNAL };
enum policy_hints { POLICY_HINTS_REQUIRE, POLICY_HINTS_WHEN_SUPPORTED };
struct directory_settings {
	const char *name;              /* "corp": in logs, results, requests' `directory` */
	enum directory_kind kind;
	const char *const *servers;    /* "dc1.corp.example.com" or "dc1.corp.example.com:636"; NULL-terminated; tried in this order. Empty where `discover` is set */
	const char *discover;          /* DNS domain whose SRV records (MS-ADTS 6.3.2.3; flavor ldap: RFC 2782) name the servers; NULL: `servers` do */
	const char *site;              /* its site, whose servers come first; NULL: none */
	bool prefer_pdc;               /* the PDC emulator comes first of all */
	const char *base_dn;           /* NULL: the rootDSE's defaultNamingContext (active-directory only) */
	const char *login_attribute;   /* flavor ldap: what LOCATE_UID searches; NULL: uid */
	const char *default_policy;    /* flavor ldap: DN of the policy of those who have none of their own; NULL: not known, on 389 Directory Server cn=config */
	const char *ca_file, *crl_file;/* PEM; NULL: the system's store; no CRL */
	enum bind_mechanism bind_mechanism;
	const char *bind_dn;           /* BIND_SIMPLE: DN or userPrincipalName */
	const char *bind_password_file;
	const char *bind_principal;    /* BIND_GSSAPI, BIND_GSS_SPNEGO: "svc-writeback@CORP.EXAMPLE.COM"; NULL: the keytab's first */
	const char *bind_keytab_file;
	const char *bind_certificate_file, *bind_key_file; /* BIND_EXTERNAL: PEM */
	const char *const *domains;    /* UPN suffixes and NetBIOS/DNS names served; NULL-terminated; may be empty: everything */
	enum policy_hints policy_hints;
	unsigned connections;          /* a server, at most: 1 to 16 */
	unsigned pipeline;             /* operations outstanding on one connection, at most */
	unsigned queue_limit;          /* operations waiting for a connection; more is agent.overloaded */
	int64_t connect_timeout_ms, locate_timeout_ms, write_timeout_ms, policy_cache_ms, idle_probe_ms;
};

/* An attribute's record in replPropertyMetaData (MS-ADTS 3.1.1.1.9), or what stands for it (ldap_directory.h): what settles whether a write happened. Not known and not absent: it cannot be read. */
struct replication_record {
	bool known;
	bool absent;                   /* there is none, for certain: the attribute was never written */
	bool young;                    /* known, and too young to settle by: another write within its second would look the same */
	uint32_t version;
	uint8_t originator[16];        /* invocationId */
	uint64_t originating_usn;
	int64_t time_s;
};
/* The server and its position before the write, read on the connection that will write. */
struct server_position {
	char *server;                  /* host name as connected to */
	uint8_t invocation_id[16];
	bool invocation_known;
	uint64_t highest_committed_usn;/* 0: unknown */
	int64_t current_time_s;        /* the server's clock; 0: unknown */
	uint8_t own_id[16];            /* own_known: what stands for the originator where a change is written in the user's own right; else it is invocation_id */
	bool own_known;
};

struct directory;
struct directory_call; /* one operation under way; a handle for directory_cancel only */

/* A user found on one server. Opaque but for these readers; freed by located_free, which lets the connection go. */
struct located;
const struct account *located_account(const struct located *located);
const struct server_position *located_position(const struct located *located);
const struct replication_record *located_password_record(const struct located *located); /* unicodePwd */
struct directory *located_directory(const struct located *located);
/* The policy-hints control that this server supports ("1.2.840.113556.1.4.2239", "….2066"), or NULL. */
const char *located_policy_control(const struct located *located);
/* The account that the agent binds as; size 0: not known. */
struct sid located_agent(const struct located *located);
void located_free(struct located *located);
/* A write was not answered in time on the connection that it was read over, which still stands, for the sake of what else is outstanding there: the server may do what was sent over it. */
bool located_is_retiring(const struct located *located);
/* One more reference, for located_free. Both see what directory_recheck reads. */
struct located *located_ref(struct located *located);

/* How an answer looked, for the log and the administrator. */
struct directory_answer {
	int ldap_result;               /* -1: there was none */
	uint32_t win32;                /* from the diagnostic text; 0: none */
	char diagnostic[512];          /* valid UTF-8, control characters replaced */
	char server[256];
	bool sent;                     /* write: the modify had left for the server */
	bool answered;                 /* write: its answer came, and says whether it was done; sent and not answered is the case for settling */
	bool tried;                    /* verify, and a change in the user's own right: the old password had left for the server */
	bool incomplete;               /* write: STATUS_OK, the password is set, and what had to follow it (must_change, flavor ldap) was refused or is not known: result and text are of that */
};

/* The start reads bind password and CA; servers are connected at once in the background. `ret_why`: malloc'ed sentence on failure. */
enum status directory_new(struct event_base *base, const struct directory_settings *settings, struct directory **ret_directory, char **ret_why) MUST_USE;
/* Cancels everything under way (their callbacks fire with directory.unavailable), closes the connections. */
void directory_free(struct directory *directory);
const char *directory_name(const struct directory *directory);
/* For the two readiness displays: servers up and known, and a sentence: "dc1.corp.example.com (LDAPS, simple)" or why not. */
struct directory_health {
	unsigned servers_up, servers;
	enum status status;            /* of the worst case if none is up */
	char text[340];
	int64_t next_try_s;            /* none is up and the worst waits: when it is tried again, seconds since 1970; 0: it is being tried */
	int64_t clock_skew_ms;         /* host's clock less the server's at the last look; INT64_MIN: unknown */
};
void directory_health(const struct directory *directory, struct directory_health *ret_health);
/* Called on the loop whenever health changes (a server comes up or goes down). */
void directory_on_health(struct directory *directory, void (*changed)(struct directory *, void *arg), void *arg);

/* What the directory's administrators call things. */
struct directory_words {
	const char *user_id;           /* "objectGUID" */
	const char *policy_control;    /* "the policy-hints control" */
	const char *default_policy;    /* "the domain's" password policy */
	const char *own_policy;        /* "a Password Settings object" */
	const char *policy_right;      /* what reading a policy takes */
	const char *unprotected;       /* what those are not who are protected whatever the scope says */
};
const struct directory_words *directory_words(const struct directory *directory);
/* "active-directory" or "ldap". */
const char *directory_flavor(const struct directory *directory);

/* True where `domain` (a UPN suffix, NetBIOS or DNS name; case-insensitive) is among settings->domains, or that list is empty. */
bool directory_serves(const struct directory *directory, const char *domain);
/* How far `domain` is the directory's own: not at all (others are configured); it has not been asked yet which names it goes by; it may be, since none are configured, and is not among
 * those; it is among them (DNS and NetBIOS name, UPN suffixes of the forest); it is configured. */
enum directory_claim { CLAIM_NONE, CLAIM_UNKNOWN, CLAIM_OPEN, CLAIM_LEARNED, CLAIM_CONFIGURED };
enum directory_claim directory_claims(const struct directory *directory, const char *domain);
/* Each server, the preferred one first. */
struct directory_server {
	const char *name;
	char origin[160];              /* who names it: "listed", "site Berlin", "domain corp.example.com", "PDC record" */
	char text[340];                /* its state in words: "ready", "down: …" */
	bool up, next;                 /* next: a request would go there now */
	bool pdc, read_only, unsynchronized;
};
void directory_each_server(const struct directory *directory, void (*visit)(const struct directory_server *server, void *arg), void *arg);

/* Whom to look for; the same as proto's subject, without the dependency on who sent it. Strings are borrowed during the call only. */
enum locate_by { LOCATE_OBJECT_GUID, LOCATE_CONSISTENCY_GUID, LOCATE_UPN, LOCATE_SAM, LOCATE_ENTRY_UUID, LOCATE_UID };
/* STATUS_OK with `located` (the callee's to free), else: user.not_found, user.ambiguous, directory.*. A user whose groups could not be read is
 * located with group_count 0; a policy that could not be read has source POLICY_UNKNOWN. `prefer_server` may be NULL. */
typedef void (*locate_done)(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg);
enum status directory_locate(struct directory *directory, enum locate_by by, const char *id, const char *prefer_server, int64_t timeout_ms,
                             locate_done done, void *arg, struct directory_call **ret_call) MUST_USE;
/* Likewise on any server but `not_server`, a server_position's name; directory.unavailable, soon, where no other one is up or on its way. */
enum status directory_locate_beside(struct directory *directory, enum locate_by by, const char *id, const char *not_server, int64_t timeout_ms,
                                    locate_done done, void *arg, struct directory_call **ret_call) MUST_USE;
/* Whether one such is up now. */
bool directory_has_beside(const struct directory *directory, const char *not_server);

/* Reads the account again on the same connection into `located` (located_account gives the new facts). */
typedef void (*recheck_done)(enum status status, const struct directory_answer *answer, void *arg);
enum status directory_recheck(struct located *located, int64_t timeout_ms, recheck_done done, void *arg, struct directory_call **ret_call) MUST_USE;

struct directory_change {
	bool set_password;             /* replace unicodePwd */
	struct bytes password;         /* UTF-8; borrowed until the call returns: it is encoded into the modify at once and wiped there */
	struct bytes old_password;     /* size 0: a reset; else a change: delete it and add `password` (flavor ldap: in the user's own right, see ldap_directory.h). A wrong one is credential.wrong; likewise borrowed */
	bool must_change;              /* replace pwdLastSet: 0 */
	bool clear_lockout;            /* replace lockoutTime: 0 */
	bool enforce_policy;           /* send the policy-hints control, critical */
	/* Asked with the call's `arg`, on the loop, at the last moment before the password, or the unlock, is encoded for the server: from inside directory_write(), or as often later as it takes
	 * while the call waits (for a place in the pipeline; in the flavor ldap, of a change, before the bind as the user and once more behind it). Anything but STATUS_OK: nothing of it leaves, and the
	 * call ends with that status and answer->sent false, or directory_write() returns it. It may not begin, end or cancel a call. NULL: always wanted.
	 * Not asked for what is to follow a password that is set (must_change, flavor ldap). What has been encoded is not called back: while the server's host takes no bytes it may stand in the connection's output,
	 * `pipeline` messages at most, until the first operation there has waited for its whole time; then the connection is given up, and what was not encrypted by then never leaves. What the
	 * kernel has taken may arrive even later, and counts as sent: without an answer it is for settling. */
	enum status (*still_wanted)(void *arg);
};
/* One modify. STATUS_OK: applied. policy.rejected: the directory refused the password (the gate then finds out which rule). directory.timeout, directory.unavailable,
 * directory.busy or directory.protocol with answer->sent && !answer->answered: the truth is open. Otherwise nothing was changed. STATUS_DIRECTORY_NO_POLICY_CONTROL at once where enforce_policy
 * is asked, the server has neither control and settings->policy_hints is REQUIRE. */
typedef void (*write_done)(enum status status, const struct directory_answer *answer, void *arg);
enum status directory_write(struct located *located, const struct directory_change *change, int64_t timeout_ms,
                            write_done done, void *arg, struct directory_call **ret_call) MUST_USE;

/* Whether `password` is the user's and would let him in: a simple bind as him on a connection of its own to the server that he was read from. STATUS_VERIFIED, credential.*, user.locked,
 * user.disabled, user.expired, user.logon_*, directory.*. An empty password is refused with credential.wrong, without a callback: servers take it for an anonymous bind (RFC 4513 5.1.2).
 * More than a few at once wait for each other, up to settings->queue_limit. directory.timeout or directory.unavailable with answer->sent && !answer->answered: the password may have been tried. `password` is borrowed until the call returns. */
typedef void (*verify_done)(enum status status, const struct directory_answer *answer, void *arg);
enum status directory_verify(struct located *located, struct bytes password, int64_t timeout_ms, verify_done done, void *arg, struct directory_call **ret_call) MUST_USE;

/* The callback will not fire; an outstanding LDAP operation is abandoned on our side only. Not for writes that were sent. */
void directory_cancel(struct directory_call *call);

/* The SID of a group by its DN, for scope rules written as DNs. user.not_found where there is none. */
typedef void (*lookup_sid_done)(enum status status, const struct sid *sid, const struct directory_answer *answer, void *arg);
enum status directory_lookup_sid(struct directory *directory, const char *dn, int64_t timeout_ms, lookup_sid_done done, void *arg,
                                 struct directory_call **ret_call) MUST_USE;
/* Whether an object of any kind is there: user.not_found where it is not, or where `dn` is not a name that the server understands. `sid` has size 0 where the object has none
 * (an organizational unit). */
enum status directory_exists(struct directory *directory, const char *dn, int64_t timeout_ms, lookup_sid_done done, void *arg, struct directory_call **ret_call) MUST_USE;
/* What the agent's account may do, as far as a directory can be asked without writing: by the access check of MS-ADTS 5.1.3.3 on the descriptors of the user, the domain's head and the
 * Password Settings Container, with the token that the server says the connection has; and by allowedAttributesEffective. A flavor that has nothing like it answers RIGHT_UNKNOWN. */
enum directory_right {
	RIGHT_RESET_PASSWORD, RIGHT_CHANGE_PASSWORD, RIGHT_WRITE_LOCKOUT_TIME, RIGHT_WRITE_PWD_LAST_SET, RIGHT_UNEXPIRE_PASSWORD /* on the domain's head */,
	RIGHT_READ_USER, RIGHT_READ_POLICIES /* the policy of the user's own, where he has one; else those that the container would show */, RIGHT_COUNT
};
enum right_answer { RIGHT_UNKNOWN, RIGHT_NO, RIGHT_YES };
struct directory_rights {
	enum right_answer answers[RIGHT_COUNT];
	bool contradicted[RIGHT_COUNT]; /* the access check and allowedAttributesEffective differ; the answer is the latter's */
	char unreadable[640];           /* RIGHT_READ_USER, no: the attributes' names with blanks between; "": none */
};
/* `rights` is NULL where they could not be read. */
typedef void (*rights_done)(enum status status, const struct directory_rights *rights, void *arg);
enum status directory_read_rights(struct located *located, int64_t timeout_ms, rights_done done, void *arg, struct directory_call **ret_call) MUST_USE;
/* An administrator says that something was mended: the password file is read again, and servers that wait for their next try are tried at once. */
void directory_retry(struct directory *directory);
/* Policies are read again instead of being remembered: one of them does not explain what a server did. */
void directory_forget_policies(struct directory *directory);
/* The SID of the domain (of the domain head), once a server has been reached; false before. */
bool directory_domain_sid(const struct directory *directory, struct sid *ret_sid);

/* The pre-flight of `writebackctl check`: connects afresh to each server and tries chain, name, bind, rootDSE, policy and controls. A new JSON array of
 * {"server","step","ok","text"} rows, in order. */
struct json_t;
typedef void (*check_done)(struct json_t *take_rows, void *arg);
enum status directory_check(struct directory *directory, check_done done, void *arg) MUST_USE;

#endif
