/* flavor: what differs from one kind of directory to another: what to search, how to read it, how to write, what an answer means.
 * A flavor does no I/O and keeps no state; directory.c and call.c do the asking. Each is one row: active-directory, ldap. */
#ifndef AGENT_DIRECTORY_FLAVOR_H
#define AGENT_DIRECTORY_FLAVOR_H

#include <ldap.h>

#include "agent/directory/ad_answer.h"
#include "agent/directory/directory.h"

/* One search, owned: freed by ldap_search_clear. `filter` NULL: (objectClass=*). */
struct ldap_search {
	char *base;
	int scope;
	char *filter;
	const char *const *attributes;
	int size_limit; /* 0: none */
	const LDAPControl *const *controls; /* NULL: none */
	size_t most;    /* entries that are kept; more make the reply `truncated`. 0: ENTRIES_FEW */
};
enum { ENTRIES_FEW = 4 };
void ldap_search_clear(struct ldap_search *search);

/* Of the rootDSE. `kind` matters to the flavor ldap only. */
enum server_kind { SERVER_UNKNOWN, SERVER_OPENLDAP, SERVER_389 };
struct root_facts {
	enum server_kind kind;
	char *naming_context, *host_name, *service_name, *configuration; /* NULL where absent */
	bool synchronized;
	bool read_only;                  /* it says of itself that it takes no writes */
	int64_t current_time_s;          /* 0: unknown */
	uint64_t highest_committed_usn;  /* 0: unknown */
	const char *policy_control;      /* constant; NULL: none */
};
void root_facts_clear(struct root_facts *facts);

/* Of the server's own entry. */
struct server_facts {
	bool invocation_known, read_only;
	uint8_t invocation_id[16];
};

struct token;

/* What a flavor may know of the server that it speaks of, all borrowed. */
struct view {
	const struct directory_settings *settings;
	const struct root_facts *root;
	const char *base_dn;             /* where users are looked for */
	const struct token *token;       /* whom the server takes the connection for */
	const char *self;                /* as whom the agent is bound; "", NULL: not known */
};

struct user_facts {
	struct account account;          /* without policy and is_self; groups too, where the flavor finds them by searches */
	char *group_filter;              /* where the flavor finds groups by searches: the filter of those that he is a direct member of; else NULL */
	struct replication_record password_record;
	char *policy_dn;                 /* a policy of the user's own; NULL: the domain's */
	bool policy_hidden;              /* policy_dn is NULL because the agent's account may not read it: which policy holds is not known */
};
void user_facts_clear(struct user_facts *facts);

/* Who the server takes a connection for: the SIDs of its token; count 0: not known. */
struct token {
	struct sid *sids;
	size_t count;
};
void token_clear(struct token *token);
enum rights_entry { RIGHTS_OF_USER, RIGHTS_OF_DOMAIN, RIGHTS_OF_POLICIES };

/* One write, ready to be sent: a modify or an extended operation. It points into itself: it stays where change_new made it. */
enum { CHANGE_MODS = 6 };
struct change {
	struct secret password, old_password; /* as they go over the wire; wiped with the change */
	struct secret request;           /* an extended operation's value, likewise */
	const char *extended;            /* its OID, constant; NULL: a modify */
	struct berval request_value;
	struct berval values[CHANGE_MODS], *lists[CHANGE_MODS][2];
	LDAPMod items[CHANGE_MODS], *mods[CHANGE_MODS + 1];
	size_t count;
	LDAPControl control, *controls[2];
	enum status (*still_wanted)(void *arg); /* directory_change's */
	void *arg;
};
void change_free(struct change *change);
/* To be asked right before it is encoded; STATUS_OK of NULL. */
enum status change_still_wanted(const struct change *change);
LDAPMod **change_mods(struct change *change);
LDAPControl **change_controls(struct change *change); /* NULL: none */
/* One more modification; `value` is borrowed and lives as long as the change, without bv_val: none (a replace by nothing removes). `type` is a constant. */
void change_add(struct change *change, int mod_op, const char *type, struct berval value);

struct flavor {
	const char *name;
	struct directory_words words;
	bool settles_by_position; /* a lost answer is settled by the server's invocationId (MS-ADTS 3.1.1.1.9); else by what read_user makes of the entry */
	bool changes_as_user; /* a change is an extended operation on a connection of its own that is bound as the user with the old password; else a modify on the agent's */
	/* An answer to a write that does not say that it was not done. NULL: a server answers for itself, and what it answers by an error it has rolled back (a domain controller; those that pass writes on,
	 * the read-only ones, are not used). Whatever this takes costs a user the time of settling where nothing was done: what is said before a write is begun (busy) is not among it. */
	bool (*leaves_open)(int ldap_result);
	const char *const *root_attributes, *const *server_attributes, *const *user_attributes, *const *domain_attributes, *const *policy_attributes;
	/* Of the rootDSE at the first look: root_attributes, and the token (the same list: the flavor has no tokens). rights_attributes: of the user; container_attributes: of the domain's head,
	 * and of container_rdn below it; container_rdn NULL: there is none. */
	const char *const *first_attributes, *const *rights_attributes, *const *container_attributes;
	const char *container_rdn;
	/* What the bind of a user asks for; NULL: nothing. Constant. */
	const LDAPControl *const *bind_controls;
	/* What a search for these attributes needs; NULL: nothing. Constant. */
	const LDAPControl *const *(*read_controls)(const char *const *attributes);
	const char *policy_rights[2]; /* what it takes to read the domain's policy, and one of a user's own: for the log; NULL: the right to read its entry */
	/* A search for the user's GUID; a GUID itself needs none where it is a name: then ret_search->base is NULL and ret_guid is filled. STATUS_USER_NOT_FOUND for an id that names nobody. */
	enum status (*find_user)(const struct view *view, enum locate_by by, const char *id, struct ldap_search *ret_search, uint8_t ret_guid[16]);
	/* A search for the account that we bind as. */
	enum status (*find_self)(const struct view *view, const char *bind_name, struct ldap_search *ret_search);
	/* A base search for an object of the scope by its name; `any_object`: what has no SID will do, too. */
	enum status (*find_object)(const struct view *view, const char *name, bool any_object, struct ldap_search *ret_search);
	/* The groups that the user is a direct member of (count 0), or that these groups are members of. NULL: read_user has read all groups, nested ones too. */
	enum status (*find_groups)(const struct view *view, const struct user_facts *facts, char *const *dns, size_t count, struct ldap_search *ret_search);
	/* A name for base search and modify that survives a rename; NULL: there is none, and users go by their DN. */
	void (*name_user)(const uint8_t guid[16], char out[64]);
	/* The entry of the policy that holds where a user has none of his own; NULL: there is none. Borrowed from `view`, or constant. */
	const char *(*domain_dn)(const struct view *view);
	void (*read_root)(const struct directory_settings *settings, LDAP *ldap, LDAPMessage *entry, struct root_facts *ret_facts);
	void (*read_server)(LDAP *ldap, LDAPMessage *entry, struct server_facts *ret_facts);
	enum status (*read_user)(const struct view *view, LDAP *ldap, LDAPMessage *entry, struct user_facts *ret_facts);
	/* The server that has the PDC emulator's role, by the domain's head: the DN that is its rootDSE's dsServiceName, malloc'ed; NULL: unknown. NULL: the flavor knows no such role. */
	char *(*read_role_owner)(LDAP *ldap, LDAPMessage *entry);
	/* A search for the names that the directory goes by, and each of them in an entry of its answer. NULL: it cannot be asked for them. */
	enum status (*find_names)(const struct root_facts *root, struct ldap_search *ret_search);
	void (*read_names)(LDAP *ldap, LDAPMessage *entry, void (*visit)(const char *name, void *arg), void *arg);
	bool (*read_guid)(LDAP *ldap, LDAPMessage *entry, uint8_t ret_guid[16]);
	bool (*read_sid)(LDAP *ldap, LDAPMessage *entry, struct sid *ret_sid);
	void (*read_token)(LDAP *ldap, LDAPMessage *entry, struct token *ret_token);
	/* Answers what this entry can answer; the rest of `rights` stays. */
	void (*read_rights)(enum rights_entry of, LDAP *ldap, LDAPMessage *entry, const struct token *token, struct directory_rights *rights);
	/* `own`: an entry of a policy of its own, not the domain's head. An entry that shows no policy gives POLICY_UNKNOWN. */
	void (*read_policy)(LDAP *ldap, LDAPMessage *entry, bool own, struct password_policy *ret_policy);
	/* Once everything has been read, the policy too: what follows from it. NULL: nothing. */
	void (*complete_user)(const struct view *view, struct user_facts *facts, struct server_position *position);
	/* `control`: the policy control to send, NULL for none. Two writes where one cannot hold all: ret_after[0] is what must be sent once ret_change has been applied; else NULL.
	 * request.unsupported where this server cannot do what is asked. */
	enum status (*change_new)(const struct view *view, const struct account *account, const struct directory_change *change, const char *control, struct change **ret_change,
	                          struct change **ret_after);
	/* `controls` of the answer, NULL: none. */
	enum status (*answer)(enum ad_operation operation, int ldap_result, const char *diagnostic, LDAPControl *const *controls, uint32_t *ret_win32);
};
extern const struct flavor ACTIVE_DIRECTORY, LDAP_DIRECTORY;

#endif
