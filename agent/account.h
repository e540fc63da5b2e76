/* account: what the agent knows of one user and of the password policy in effect for him, as plain data: filled by directory/, judged by gate/. */
#ifndef AGENT_ACCOUNT_H
#define AGENT_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* A SID as the directory stores it, MS-DTYP 2.4.2.2: at most 8 + 15 * 4 octets. Flavor ldap: 0, then the 16 octets of the entry's UUID (as guid_parse makes them): revision 0 is no SID's. */
#define SID_MAX 68
struct sid {
	uint8_t size;
	uint8_t octets[SID_MAX];
};

/* userAccountControl, MS-ADTS 2.2.16. */
enum {
	UAC_ACCOUNTDISABLE = 0x2, UAC_LOCKOUT = 0x10, UAC_PASSWD_NOTREQD = 0x20, UAC_NORMAL_ACCOUNT = 0x200, UAC_INTERDOMAIN_TRUST_ACCOUNT = 0x800,
	UAC_WORKSTATION_TRUST_ACCOUNT = 0x1000, UAC_SERVER_TRUST_ACCOUNT = 0x2000, UAC_DONT_EXPIRE_PASSWORD = 0x10000, UAC_SMARTCARD_REQUIRED = 0x40000,
	UAC_PASSWORD_EXPIRED = 0x800000, UAC_PARTIAL_SECRETS_ACCOUNT = 0x4000000
};

enum policy_source { POLICY_UNKNOWN, POLICY_DOMAIN, POLICY_PSO, POLICY_SUBENTRY };
struct password_policy {
	enum policy_source source;   /* POLICY_UNKNOWN: it could not be read, nothing below holds */
	char *source_name;           /* DN of the domain head or the PSO; NULL if unknown */
	unsigned min_length;         /* UTF-16 code units; 0: none */
	bool complexity;
	unsigned history;            /* remembered passwords; 0: none */
	int64_t min_age_s, max_age_s;/* 0: none */
	unsigned lockout_threshold;  /* 0: never locked */
	int64_t lockout_duration_s;  /* 0: until an administrator unlocks; means nothing where lockout_threshold is 0 */
	bool must_change;            /* flavor ldap: it has users change a password that was reset (pwdMustChange, passwordMustChange) */
};

struct account {
	char *dn;
	char guid[UUID_SIZE];        /* objectGUID */
	struct sid sid;
	char *sam_account_name, *user_principal_name, *display_name; /* NULL where absent */
	bool is_user;                /* objectClass user, not computer, not a (group) managed service account */
	bool has_spn;                /* servicePrincipalName present */
	bool is_critical_system_object;
	int64_t admin_count;
	const char *hidden;          /* constant: an attribute that would protect him, and that the agent's account may not read; NULL: none */
	uint32_t uac;                /* userAccountControl */
	uint32_t uac_computed;       /* msDS-User-Account-Control-Computed */
	bool cannot_change;          /* the user may not change the password */
	bool cannot_change_known;    /* the directory let the agent see whether he may */
	int64_t account_expires_s;   /* seconds since 1970; INT64_MAX: never */
	int64_t pwd_last_set_s;      /* seconds since 1970; 0: must change at next logon or never set */
	bool locked;                 /* now, by the server's own reckoning */
	bool lockout_time_set;       /* lockoutTime present and not 0 */
	int bad_passwords;           /* failed logons counted against the lockout threshold by the server that he was read from (badPwdCount, passwordRetryCount); -1: not known */
	int64_t lockout_began_s;     /* seconds since 1970; 0 or less: not known, or not locked since the last unlock */
	struct sid *groups;          /* tokenGroups: every group, nested and primary */
	size_t group_count;          /* 0: could not be read, which is a refusal and never "none"; with is_entry see groups_read */
	bool groups_read;            /* is_entry: all groups are in `groups`, and 0 of them means none */
	int64_t password_expires_s;  /* seconds since 1970; INT64_MAX: never; 0: not known */
	char *uid;                   /* flavor ldap: the name that the premises name users by; NULL */
	bool is_entry;               /* guid is an entryUUID (flavor ldap), not an objectGUID */
	bool is_self;                /* it is, or may be, the account that the agent binds as */
	bool self_unknown;           /* which account that is could not be found out: it may be any */
	struct password_policy policy;
};

/* Frees what it owns, zeroes it; takes zeroed ones. */
void account_clear(struct account *account);

/* "S-1-5-21-…" <-> octets; an entry's is printed as its UUID. */
#define SID_TEXT_MAX 192
void sid_format(const struct sid *sid, char out[SID_TEXT_MAX]);
enum status sid_parse(const char *text, struct sid *ret_sid) MUST_USE;
/* Of an entry (flavor ldap). */
void sid_from_entry(const uint8_t guid[16], struct sid *ret_sid);
bool sid_is_entry(const struct sid *sid);
enum status sid_from_octets(struct bytes octets, struct sid *ret_sid) MUST_USE;
bool sid_equal(const struct sid *a, const struct sid *b);
/* The last sub-authority; 0 where there is none. */
uint32_t sid_rid(const struct sid *sid);
/* `sid` is `domain` plus one RID. */
bool sid_in_domain(const struct sid *sid, const struct sid *domain);

#endif
