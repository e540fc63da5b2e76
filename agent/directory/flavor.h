/* flavor: what differs from one kind of directory to another: what to search, how to read it, how to write, what an answer means.
 * A flavor does no I/O and keeps no state; directory.c and call.c do the asking. Only active-directory exists. */
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
};
void ldap_search_clear(struct ldap_search *search);

/* Of the rootDSE. */
struct root_facts {
	char *naming_context, *host_name, *service_name; /* NULL where absent */
	bool synchronized;
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

struct user_facts {
	struct account account;          /* without policy and is_self */
	struct replication_record password_record;
	char *policy_dn;                 /* a policy of the user's own; NULL: the domain's */
};
void user_facts_clear(struct user_facts *facts);

/* Who the server takes a connection for: the SIDs of its token; count 0: not known. */
struct token {
	struct sid *sids;
	size_t count;
};
void token_clear(struct token *token);
enum rights_entry { RIGHTS_OF_USER, RIGHTS_OF_DOMAIN, RIGHTS_OF_POLICIES };

/* A modify, ready to be sent. It points into itself: it stays where change_new made it. */
struct change;
void change_free(struct change *change);
LDAPMod **change_mods(struct change *change);
LDAPControl **change_controls(struct change *change); /* NULL: none */

struct flavor {
	const char *name;
	const char *const *root_attributes, *const *server_attributes, *const *user_attributes, *const *domain_attributes, *const *policy_attributes;
	const char *const *guid_attributes, *const *sid_attributes;
	/* Of the rootDSE at the first look: root_attributes, and the token. rights_attributes: of the user; container_attributes: of container_rdn below the domain's head, NULL: there is none. */
	const char *const *first_attributes, *const *rights_attributes, *const *container_attributes;
	const char *container_rdn;
	/* What a search for these attributes needs; NULL: nothing. Constant. */
	const LDAPControl *const *(*read_controls)(const char *const *attributes);
	/* A search for the user's GUID; a GUID itself needs none: then ret_search->base is NULL and ret_guid is filled. STATUS_USER_NOT_FOUND for an id that names nobody. */
	enum status (*find_user)(enum locate_by by, const char *id, const char *base_dn, struct ldap_search *ret_search, uint8_t ret_guid[16]);
	/* A search for the account that we bind as. */
	enum status (*find_self)(const char *bind_name, const char *base_dn, struct ldap_search *ret_search);
	/* A name for base search and modify. */
	void (*name_user)(const uint8_t guid[16], char out[64]);
	void (*read_root)(LDAP *ldap, LDAPMessage *entry, struct root_facts *ret_facts);
	void (*read_server)(LDAP *ldap, LDAPMessage *entry, struct server_facts *ret_facts);
	enum status (*read_user)(LDAP *ldap, LDAPMessage *entry, struct user_facts *ret_facts);
	bool (*read_guid)(LDAP *ldap, LDAPMessage *entry, uint8_t ret_guid[16]);
	bool (*read_sid)(LDAP *ldap, LDAPMessage *entry, struct sid *ret_sid);
	void (*read_token)(LDAP *ldap, LDAPMessage *entry, struct token *ret_token);
	/* Answers what this entry can answer; the rest of `rights` stays. */
	void (*read_rights)(enum rights_entry of, LDAP *ldap, LDAPMessage *entry, const struct token *token, struct directory_rights *rights);
	/* `own`: an entry of a policy of its own, not the domain's head. An entry that shows no policy gives POLICY_UNKNOWN. */
	void (*read_policy)(LDAP *ldap, LDAPMessage *entry, bool own, struct password_policy *ret_policy);
	/* `control`: the policy control to send, NULL for none. */
	enum status (*change_new)(const struct directory_change *change, const char *control, struct change **ret_change);
	enum status (*answer)(enum ad_operation operation, int ldap_result, const char *diagnostic, uint32_t *ret_win32);
};
extern const struct flavor ACTIVE_DIRECTORY;

#endif
