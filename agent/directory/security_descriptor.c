#include "agent/directory/security_descriptor.h"

#include <string.h>

enum { HEADER_SIZE = 20, ACL_HEADER_SIZE = 8, ACE_HEADER_SIZE = 4, SID_HEADER_SIZE = 8, SID_PARTS_MAX = 15, GUID_SIZE = 16 };
enum { SE_DACL_PRESENT = 0x4, SE_SELF_RELATIVE = 0x8000 };
enum { CONTAINER_INHERIT_ACE = 0x2, INHERIT_ONLY_ACE = 0x8 };
enum { ACE_OBJECT_TYPE_PRESENT = 1, ACE_INHERITED_OBJECT_TYPE_PRESENT = 2 };

/* MS-ADTS 5.1.3.2: what the generic rights of an entry stand for. */
static const struct { uint32_t generic, rights; } GENERIC[] = {
	{ 0x80000000, 0x20094 },   /* GENERIC_READ: read control, list contents, read property, list object */
	{ 0x40000000, 0x20028 },   /* GENERIC_WRITE: read control, self, write property */
	{ 0x20000000, 0x20004 },   /* GENERIC_EXECUTE: read control, list contents */
	{ 0x10000000, 0xf01ff },   /* GENERIC_ALL */
};

/* MS-DTYP 2.4.4.1, those that say who may: with object types or without. */
static const struct ace_kind { uint8_t type; bool allows, object, conditional; } KINDS[] = {
	{ 0x00, true, false, false }, { 0x01, false, false, false }, { 0x05, true, true, false }, { 0x06, false, true, false },
	{ 0x09, true, false, true }, { 0x0a, false, false, true }, { 0x0b, true, true, true }, { 0x0c, false, true, true },
};

static const uint8_t EVERYONE[] = { 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0 };
static const uint8_t OWNER_RIGHTS[] = { 1, 1, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0 };
static const uint8_t PRINCIPAL_SELF[] = { 1, 1, 0, 0, 0, 0, 0, 5, 10, 0, 0, 0 };
/* User-Change-Password, ab721a53-1e2f-11d0-9819-00aa0040529b */
static const uint8_t CHANGE_PASSWORD[] = { 0x53, 0x1a, 0x72, 0xab, 0x2f, 0x1e, 0xd0, 0x11, 0x98, 0x19, 0x00, 0xaa, 0x00, 0x40, 0x52, 0x9b };

struct ace {
	const struct ace_kind *kind;
	uint8_t flags;
	uint32_t mask;
	const uint8_t *object, *inherited; /* NULL: any */
	struct bytes trustee;
};

static uint16_t read_u16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t read_u32(const uint8_t *at)
{
	return (uint32_t)read_u16(at) | (uint32_t)read_u16(at + 2) << 16;
}

/* The SID at the beginning of `octets`, which may be longer. */
static bool read_sid(struct bytes octets, struct bytes *ret_sid)
{
	if (octets.size < SID_HEADER_SIZE || octets.data[0] != 1 || octets.data[1] > SID_PARTS_MAX || octets.size < SID_HEADER_SIZE + 4u * octets.data[1]) {
		return false;
	}
	*ret_sid = bytes_of(octets.data, SID_HEADER_SIZE + 4u * octets.data[1]);
	return true;
}

static const struct ace_kind *find_kind(uint8_t type)
{
	for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
		if (KINDS[i].type == type) {
			return &KINDS[i];
		}
	}
	return NULL;
}

static struct bytes behind(struct bytes octets, size_t size)
{
	return bytes_of(octets.data + size, octets.size - size);
}

static bool take_guid(struct bytes *octets, bool present, const uint8_t **ret_guid)
{
	*ret_guid = NULL;
	if (!present) {
		return true;
	}
	if (octets->size < GUID_SIZE) {
		return false;
	}
	*ret_guid = octets->data;
	*octets = behind(*octets, GUID_SIZE);
	return true;
}

/* The first ACE of `*octets`, which move behind it. Its kind is NULL where its type says nothing about rights. */
static bool take_ace(struct bytes *octets, struct ace *ret_ace)
{
	*ret_ace = (struct ace){ 0 };
	size_t size = octets->size < ACE_HEADER_SIZE ? 0 : read_u16(octets->data + 2);
	if (size < ACE_HEADER_SIZE || size % 4 != 0 || size > octets->size) {
		return false;
	}
	struct bytes rest = bytes_of(octets->data + ACE_HEADER_SIZE, size - ACE_HEADER_SIZE);
	ret_ace->flags = octets->data[1];
	ret_ace->kind = find_kind(octets->data[0]);
	*octets = behind(*octets, size);
	if (ret_ace->kind == NULL) {
		return true;
	}
	if (rest.size < 4) {
		return false;
	}
	ret_ace->mask = read_u32(rest.data);
	rest = behind(rest, 4);
	if (ret_ace->kind->object) {
		if (rest.size < 4) {
			return false;
		}
		uint32_t present = read_u32(rest.data);
		rest = behind(rest, 4);
		if (!take_guid(&rest, present & ACE_OBJECT_TYPE_PRESENT, &ret_ace->object) || !take_guid(&rest, present & ACE_INHERITED_OBJECT_TYPE_PRESENT, &ret_ace->inherited)) {
			return false;
		}
	}
	return read_sid(rest, &ret_ace->trustee);
}

static bool read_list(struct bytes octets, struct bytes *ret_aces)
{
	size_t size = octets.size < ACL_HEADER_SIZE ? 0 : read_u16(octets.data + 2);
	if (size < ACL_HEADER_SIZE || size > octets.size || (octets.data[0] != 2 && octets.data[0] != 4)) {
		return false;
	}
	struct bytes rest = bytes_of(octets.data + ACL_HEADER_SIZE, size - ACL_HEADER_SIZE), all = rest;
	struct ace ace;
	for (unsigned count = read_u16(octets.data + 4); count > 0; count--) {
		if (!take_ace(&rest, &ace)) {
			return false;
		}
	}
	/* behind the last one a list may have room for more */
	*ret_aces = bytes_of(all.data, all.size - rest.size);
	return true;
}

/* What begins at the offset that stands at `at`. False: it points outside. 0 is "none", of size 0. */
static bool follow(struct bytes octets, size_t at, struct bytes *ret_rest)
{
	uint32_t offset = read_u32(octets.data + at);
	*ret_rest = bytes_of(octets.data, 0);
	if (offset == 0) {
		return true;
	}
	if (offset < HEADER_SIZE || offset >= octets.size) {
		return false;
	}
	*ret_rest = behind(octets, offset);
	return true;
}

enum status security_descriptor_read(struct bytes octets, struct security_descriptor *ret_descriptor)
{
	struct security_descriptor descriptor = { 0 };
	struct bytes owner, list;
	*ret_descriptor = descriptor;
	if (octets.size < HEADER_SIZE || octets.data[0] != 1 || !(read_u16(octets.data + 2) & SE_SELF_RELATIVE) || !follow(octets, 4, &owner) || !follow(octets, 16, &list) ||
	    (owner.size > 0 && !read_sid(owner, &descriptor.owner))) {
		return STATUS_LOCAL_INPUT;
	}
	descriptor.open = !(read_u16(octets.data + 2) & SE_DACL_PRESENT) || list.size == 0;
	if (!descriptor.open && !read_list(list, &descriptor.aces)) {
		return STATUS_LOCAL_INPUT;
	}
	*ret_descriptor = descriptor;
	return STATUS_OK;
}

/* The check ------------------------------------------------------------------------------------------------------------------------------- */

static bool is_sid(struct bytes octets, const uint8_t *sid, size_t size)
{
	return octets.size == size && memcmp(octets.data, sid, size) == 0;
}

static bool token_has(const struct access_token *token, struct bytes octets)
{
	for (size_t i = 0; i < token->count; i++) {
		if (is_sid(octets, token->sids[i].octets, token->sids[i].size)) {
			return true;
		}
	}
	return false;
}

static bool is_meant(const struct security_descriptor *descriptor, const struct access_token *token, struct bytes trustee)
{
	if (is_sid(trustee, PRINCIPAL_SELF, sizeof PRINCIPAL_SELF) && token->self != NULL) {
		trustee = bytes_of(token->self->octets, token->self->size);
	} else if (is_sid(trustee, OWNER_RIGHTS, sizeof OWNER_RIGHTS)) {
		trustee = descriptor->owner;
	}
	return trustee.size > 0 && token_has(token, trustee);
}

static bool same_guid(const uint8_t *one, const uint8_t *other)
{
	return other != NULL && memcmp(one, other, GUID_SIZE) == 0;
}

/* It is an entry for the object that is asked about: its own, or one that such a child would inherit. */
static bool applies(const struct ace *ace, const struct access_wanted *wanted)
{
	if (ace->kind == NULL) {
		return false;
	}
	if (wanted->child_class == NULL) {
		return !(ace->flags & INHERIT_ONLY_ACE);
	}
	return (ace->flags & CONTAINER_INHERIT_ACE) && (ace->inherited == NULL || same_guid(ace->inherited, wanted->child_class));
}

static bool has_right(const struct ace *ace, uint32_t right)
{
	uint32_t mask = ace->mask;
	for (size_t i = 0; i < sizeof GENERIC / sizeof GENERIC[0]; i++) {
		if (ace->mask & GENERIC[i].generic) {
			mask |= GENERIC[i].rights;
		}
	}
	return (mask & right) != 0;
}

static bool fits(const struct ace *ace, const struct access_wanted *wanted)
{
	return applies(ace, wanted) && has_right(ace, wanted->right) && (ace->object == NULL || same_guid(ace->object, wanted->object) || same_guid(ace->object, wanted->set)) &&
	       !(ace->kind->conditional && ace->kind->allows);
}

enum access security_descriptor_check(const struct security_descriptor *descriptor, const struct access_token *token, const struct access_wanted *wanted)
{
	struct bytes rest = descriptor->aces;
	struct ace ace;
	if (descriptor->open) {
		return ACCESS_GRANTED;
	}
	while (rest.size > 0 && take_ace(&rest, &ace)) {
		if (fits(&ace, wanted) && is_meant(descriptor, token, ace.trustee)) {
			return ace.kind->allows ? ACCESS_GRANTED : ACCESS_DENIED;
		}
	}
	return ACCESS_NONE;
}

bool security_descriptor_forbids_change(const struct security_descriptor *descriptor, const struct sid *user)
{
	struct sid sids[2] = { *user, { .size = sizeof EVERYONE } };
	memcpy(sids[1].octets, EVERYONE, sizeof EVERYONE);
	struct access_token token = { sids, 2, user };
	struct access_wanted wanted = { .right = ACCESS_CONTROL, .object = CHANGE_PASSWORD };
	return security_descriptor_check(descriptor, &token, &wanted) == ACCESS_DENIED;
}
