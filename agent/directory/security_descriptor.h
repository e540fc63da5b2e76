/* security_descriptor: who may do what to an object: a self-relative SECURITY_DESCRIPTOR (MS-DTYP 2.4.6) as it comes from a directory, read without trust, and the access check of
 * MS-ADTS 5.1.3.3 for one right at a time. Pure; nothing is copied. */
#ifndef AGENT_DIRECTORY_SECURITY_DESCRIPTOR_H
#define AGENT_DIRECTORY_SECURITY_DESCRIPTOR_H

#include "agent/account.h"
#include "base/status.h"

/* Access rights, MS-ADTS 5.1.3.2. One bit is asked at a time. */
enum {
	ACCESS_LIST_CONTENTS = 0x4, ACCESS_READ_PROPERTY = 0x10, ACCESS_WRITE_PROPERTY = 0x20, ACCESS_CONTROL = 0x100 /* a control access right */
};

/* Borrows the octets that it was read from. */
struct security_descriptor {
	struct bytes owner;            /* a SID's octets; size 0: none */
	struct bytes aces;             /* of the discretionary list, all of them well-formed */
	bool open;                     /* there is no such list: everybody may everything */
};

/* STATUS_LOCAL_INPUT for anything malformed: an offset, a size or a SID that does not fit, a revision that is not known. ACEs of unknown types are well-formed and mean nothing. */
enum status security_descriptor_read(struct bytes octets, struct security_descriptor *ret_descriptor) MUST_USE;

/* Who asks: every SID of the requester, groups and well-known ones included. `self`: the object's own SID, which PRINCIPAL_SELF (S-1-5-10) stands for; NULL: it has none. */
struct access_token {
	const struct sid *sids;
	size_t count;
	const struct sid *self;
};

/* What is asked for. */
struct access_wanted {
	uint32_t right;                /* one ACCESS_ bit */
	const uint8_t *object;         /* the control access right's or the attribute's GUID as in the octets (MS-DTYP 2.3.4.2); NULL: the whole object */
	const uint8_t *set;            /* the attribute's property set; NULL: none */
	const uint8_t *child_class;    /* asks what objects of this class below it would inherit; NULL: the object itself */
};

/* DENIED: by an entry that says so; NONE: by nothing that allows it. The first entry that fits decides, whichever order the list is in. Conditional entries (callback types) cannot be judged
 * here: one that denies counts, one that allows does not. */
enum access { ACCESS_NONE, ACCESS_DENIED, ACCESS_GRANTED };
enum access security_descriptor_check(const struct security_descriptor *descriptor, const struct access_token *token, const struct access_wanted *wanted);

/* The user's own right to change the password is denied to SELF or Everyone: what Windows' tools show as "User cannot change password". `user`: the object's SID. */
bool security_descriptor_forbids_change(const struct security_descriptor *descriptor, const struct sid *user);

#endif
