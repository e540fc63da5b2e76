/* forest: the objects of the one domain, its configuration container, its accounts and their state. No network, no LDAP.
 *
 * Times are FILETIMEs (100 ns since 1601); `forest_now` is the host's clock plus what the control socket's `clock` added. */
#ifndef MOCK_DIRECTORY_FOREST_H
#define MOCK_DIRECTORY_FOREST_H

#include "name.h"
#include "values.h"

#define TICKS_PER_SECOND INT64_C(10000000)
#define SECONDS_1601_TO_1970 INT64_C(11644473600)
#define HISTORY_MAX 24

enum account_control {
	UAC_DISABLED = 0x2, UAC_LOCKOUT = 0x10, UAC_PASSWORD_NOT_REQUIRED = 0x20, UAC_NORMAL = 0x200, UAC_WORKSTATION = 0x1000, UAC_SERVER = 0x2000,
	UAC_DONT_EXPIRE = 0x10000, UAC_SMARTCARD = 0x40000, UAC_PASSWORD_EXPIRED = 0x800000,
};

struct policy {
	unsigned min_length, history, lockout_threshold;
	bool complexity;
	int64_t min_age, max_age, lockout_duration, lockout_window; /* ticks; max_age 0: never */
};

/* One attribute's record of replPropertyMetaData. Version 0: never written. */
struct replication {
	uint32_t version;
	uint64_t usn, local; /* the originator's; this server's own */
	int64_t time; /* FILETIME */
	uint8_t originator[16]; /* invocationId */
};

/* A password is kept as its digest only; it compares, it cannot be read. */
struct digest {
	uint8_t octets[32];
	bool set;
};

struct account {
	char *sam, *upn, *display_name;
	uint32_t control;
	int64_t password_last_set, lockout_time, bad_password_time, expires; /* expires 0: never */
	unsigned bad_password_count, password_writes;
	bool logon_hours_closed, workstation_bound;
	struct digest password, history[HISTORY_MAX];
	struct replication password_record, lockout_record, last_set_record;
};

enum class_kind { CLASS_CONTAINER, CLASS_DOMAIN, CLASS_UNIT, CLASS_USER, CLASS_COMPUTER, CLASS_GMSA, CLASS_GROUP, CLASS_PSO, CLASS_PSO_CONTAINER,
	CLASS_BUILTIN, CLASS_CONFIGURATION, CLASS_SITES, CLASS_SITE, CLASS_SERVERS, CLASS_SERVER, CLASS_NTDS, CLASS_PARTITIONS, CLASS_CROSSREF, CLASS_SERVICE,
	CLASS_QUERY_POLICY, CLASS_COUNT };
struct class_row {
	const char *category;       /* CN of the schema's object */
	const char *short_category; /* what a filter may say instead */
	const char *names[7];       /* objectClass, from top */
};
extern const struct class_row class_rows[CLASS_COUNT];

/* An attribute that never changes by itself. */
struct stored {
	char *name;
	char *data;
	size_t size;
};

struct attribute_row;

struct object {
	char *dn, *folded, *rdn; /* rdn: the value of the first component, plain */
	enum class_kind class;
	bool configuration;      /* in the configuration's naming context, not the domain's */
	bool admin;              /* adminCount=1: AdminSDHolder's descriptor is on it */
	bool cannot_change;      /* its descriptor denies Change Password to SELF and Everyone */
	bool sealed;             /* and gives ordinary accounts no READ_CONTROL: it is not shown */
	const struct attribute_row *hidden; /* its descriptor denies Everyone reading this one, and nobody but administrators sees it; NULL: none */
	uint8_t guid[16], anchor[16], sid[28];
	bool anchor_set;
	uint8_t sid_size;
	uint32_t rid;
	struct account *account; /* users, computers */
	struct policy *policy;   /* domain head, PSOs */
	unsigned precedence;     /* PSOs */
	struct object **member_of;
	size_t member_of_count;
	struct object **applies_to; /* PSOs */
	size_t applies_to_count;
	struct object **readers; /* PSOs: who may read its attributes */
	size_t readers_count;
	struct stored *stored;
	size_t stored_count;
	uint64_t usn_created, usn_changed;
	int64_t when_created, when_changed;
	unsigned mark;
	struct object *next_hash;
};

enum right { RIGHT_RESET_PASSWORD = 1, RIGHT_WRITE_LOCKOUT = 2, RIGHT_WRITE_LAST_SET = 4, RIGHT_READ_PSO = 8, RIGHT_UNEXPIRE = 16 };
/* 0: no right is called so. */
unsigned right_from_text(const char *name);
struct grant {
	struct object *who; /* an account or a group */
	struct object *where;
	unsigned rights;
};

struct forest {
	char *dns_name, *netbios, *host, *server_name; /* "corp.example.test", "CORP", "dc1.corp.example.test", "DC1" */
	struct object *domain, *configuration, *partitions, *ntds, *server;
	uint8_t domain_sid[24], invocation_id[16];
	uint8_t founder[16]; /* invocationId of the domain's first server, dc1: what the file says was written there */
	struct object **objects; /* parents before children */
	size_t count, capacity;
	struct object *hash[1024];
	char *categories[CLASS_COUNT]; /* objectCategory of each class, once asked for */
	struct grant *grants;
	size_t grant_count;
	char **filter_words;     /* the password filter: a password that contains one is refused */
	size_t filter_count;
	unsigned idle_seconds;   /* MaxConnIdleTime */
	bool read_only;          /* an RODC */
	bool unsynchronized;     /* its first replication has not ended */
	char *role_owner;        /* whose NTDS Settings has the PDC emulator's role */
	bool unexpire_needed;    /* a reset without Unexpire-Password leaves pwdLastSet 0 */
	unsigned unknown_user;   /* sub-code of a bind by nobody: 0x52e or 0x525 */
	uint64_t usn;
	uint32_t next_rid;
	int64_t clock_offset;    /* ticks */
	unsigned mark;
	struct arena arena;      /* while it is built */
};

/* `ret_why`: malloc'ed sentence on failure. */
struct forest *forest_read(const char *path, const char *host, unsigned seed, char **ret_why);
void forest_free(struct forest *forest);
int64_t forest_now(const struct forest *forest);

/* Adds "TYPE=value" below the parent (NULL: `parent_dn` "" for a head whose whole name is `value`). */
struct object *forest_add(struct forest *forest, struct object *parent, const char *type, const char *value, enum class_kind class);
struct object *forest_add_head(struct forest *forest, const char *dn, enum class_kind class);
/* Moves and renames an account (MS-ADTS 3.1.1.5.4): objectGUID, objectSid, memberships and the records of its attributes stay. False where the new name is taken. */
bool forest_move(struct forest *forest, struct arena *arena, struct object *account, const struct object *parent, const char *value);
struct account *forest_add_account(struct forest *forest, struct object *object, const char *sam);
void forest_set_rid(struct forest *forest, struct object *object, uint32_t rid);
void object_store(struct object *object, const char *name, const void *data, size_t size);
void object_store_text(struct object *object, const char *name, const char *text);
void object_join(struct object *member, struct object *group);
/* The containers, well-known groups and configuration that every domain has. */
void forest_build(struct forest *forest, const char *domain_sid);
/* SDProp (MS-ADTS 3.1.1.6.1.2): adminCount=1 on every member of the protected groups. */
void forest_protect(struct forest *forest);

struct object *forest_by_folded(const struct forest *forest, const char *folded);
/* A name as LDAP gives it: DN, <GUID=…>, <SID=…>. NULL: no such object, or `ret_bad` where the syntax is wrong. */
struct object *forest_resolve(struct forest *forest, struct arena *arena, struct value name, bool *ret_bad);
struct object *forest_by_sam(struct forest *forest, struct arena *arena, struct value sam);
/* DN, userPrincipalName, NETBIOS\name, name@domain as in a bind; NULL where there is none or more than one. */
struct object *forest_by_logon(struct forest *forest, struct arena *arena, struct value name);
struct object *forest_group(struct forest *forest, const char *name);
struct object *forest_primary_group(const struct forest *forest, const struct object *object);
unsigned object_primary_rid(const struct object *object);

/* Marks every group that the object is in, directly, by nesting or as its primary group: afterwards object->mark == forest->mark for those. */
void forest_mark_groups(struct forest *forest, struct object *object);
bool forest_is_member(struct forest *forest, struct object *object, const struct object *group, bool primary_too);
bool forest_is_administrator(struct forest *forest, struct object *who);
bool forest_may(struct forest *forest, struct object *who, struct object *target, enum right right);
/* A PSO, or their container. */
bool forest_may_read_policy(struct forest *forest, struct object *who, struct object *pso);
/* The PSO that applies (MS-ADTS 3.1.1.4.5.36), or NULL; and the policy in force. */
struct object *forest_resultant_pso(struct forest *forest, struct object *object);
const struct policy *forest_policy(struct forest *forest, struct object *object);

/* The account's state now. */
bool account_locked(const struct account *account, const struct policy *policy, int64_t now);
bool account_expired_password(const struct account *account, const struct policy *policy, int64_t now);
void replication_write(struct forest *forest, struct object *object, struct replication *record, uint64_t usn);

#endif
