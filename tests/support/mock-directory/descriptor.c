#include "descriptor.h"

#include "attributes.h"

#include <string.h>

#define GUID_SIZE 16

enum { OWNER_PART = 1, LIST_PART = 4, AUDIT_PART = 8 };
enum { READ_PROPERTY = 0x10, WRITE_PROPERTY = 0x20, CONTROL_ACCESS = 0x100, READ_CONTROL = 0x20000, READ_ALL = 0x20094, LIST_AND_READ = 0x14, FULL_CONTROL = 0xf01ff };
enum { ALLOWED = 0x00, ALLOWED_OBJECT = 0x05, DENIED_OBJECT = 0x06 };
enum { CONTAINER_INHERIT = 0x02, INHERITED = 0x10 };

static const uint8_t everyone[] = { 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0 }, authenticated[] = { 1, 1, 0, 0, 0, 0, 0, 5, 11, 0, 0, 0 }, self[] = { 1, 1, 0, 0, 0, 0, 0, 5, 10, 0, 0, 0 };
static const uint8_t administrators[] = { 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0 }, compatible[] = { 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x2a, 2, 0, 0 };
/* Reset Password, Change Password, lockoutTime, pwdLastSet, Unexpire Password; General and Public Information. */
static const uint8_t reset_password[] = { 0x70, 0x95, 0x29, 0x00, 0x6d, 0x24, 0xd0, 0x11, 0xa7, 0x68, 0x00, 0xaa, 0x00, 0x6e, 0x05, 0x29 };
static const uint8_t change_password[] = { 0x53, 0x1a, 0x72, 0xab, 0x2f, 0x1e, 0xd0, 0x11, 0x98, 0x19, 0x00, 0xaa, 0x00, 0x40, 0x52, 0x9b };
static const uint8_t lockout_time[] = { 0xbf, 0x0e, 0x63, 0x28, 0xd5, 0x41, 0xd1, 0x11, 0xa9, 0xc1, 0x00, 0x00, 0xf8, 0x03, 0x67, 0xc1 };
static const uint8_t password_last_set[] = { 0x0a, 0x7a, 0x96, 0xbf, 0xe6, 0x0d, 0xd0, 0x11, 0xa2, 0x85, 0x00, 0xaa, 0x00, 0x30, 0x49, 0xe2 };
static const uint8_t unexpire_password[] = { 0x7d, 0xdc, 0xc2, 0xcc, 0xad, 0xa6, 0x7a, 0x4a, 0x88, 0x46, 0xc0, 0x4e, 0x3c, 0xc5, 0x35, 0x01 };
static const uint8_t general_information[] = { 0x42, 0x2f, 0xba, 0x59, 0xa2, 0x79, 0xd0, 0x11, 0x90, 0x20, 0x00, 0xc0, 0x4f, 0xc2, 0xd3, 0xcf };
static const uint8_t public_information[] = { 0x54, 0x01, 0x8d, 0xe4, 0xf8, 0xbc, 0xd1, 0x11, 0x87, 0x02, 0x00, 0xc0, 0x4f, 0xb9, 0x60, 0x50 };

struct list {
	uint8_t octets[16384];
	size_t size;
	unsigned count;
};

static void put(uint8_t *at, uint64_t number, unsigned octets)
{
	for (unsigned i = 0; i < octets; i++)
		at[i] = (uint8_t)(number >> 8 * i);
}

/* One ACE; `object` NULL: of the simple kind. */
static void add(struct list *list, uint8_t type, uint8_t flags, uint32_t mask, const uint8_t *object, const uint8_t *sid, size_t sid_size)
{
	size_t head = object ? 12 + GUID_SIZE : 8;
	uint8_t *at = list->octets + list->size;
	if (list->size + head + sid_size > sizeof list->octets)
		return;
	at[0] = type;
	at[1] = flags;
	put(at + 2, head + sid_size, 2);
	put(at + 4, mask, 4);
	if (object) {
		put(at + 8, 1, 4);
		memcpy(at + 12, object, GUID_SIZE);
	}
	memcpy(at + head, sid, sid_size);
	list->size += head + sid_size;
	list->count++;
}
#define ADD(list, type, flags, mask, object, sid) add(list, type, flags, mask, object, sid, sizeof sid)

static void add_group(struct list *list, struct forest *forest, const char *name, uint8_t flags, uint32_t mask)
{
	const struct object *group = forest_group(forest, name);
	if (group)
		add(list, ALLOWED, flags, mask, NULL, group->sid, group->sid_size);
}

/* The delegated rights that reach this object. */
static void add_grants(struct list *list, struct forest *forest, const struct object *object)
{
	static const struct { enum right right; const uint8_t *object; uint32_t mask; } rows[] = {
		{ RIGHT_RESET_PASSWORD, reset_password, CONTROL_ACCESS }, { RIGHT_WRITE_LOCKOUT, lockout_time, WRITE_PROPERTY }, { RIGHT_WRITE_LAST_SET, password_last_set, WRITE_PROPERTY },
		{ RIGHT_UNEXPIRE, unexpire_password, CONTROL_ACCESS },
	};
	for (size_t i = 0; i < forest->grant_count; i++) {
		const struct grant *grant = &forest->grants[i];
		bool own = grant->where == object, reaches = object->account ? name_is_below(object->folded, grant->where->folded) : own;
		for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++)
			if ((grant->rights & rows[j].right) && reaches && (rows[j].right == RIGHT_UNEXPIRE) == (object->class == CLASS_DOMAIN))
				add(list, ALLOWED_OBJECT, own ? 0 : INHERITED, rows[j].mask, rows[j].object, grant->who->sid, grant->who->sid_size);
		if ((grant->rights & RIGHT_READ_PSO) && object->class == CLASS_PSO_CONTAINER)
			add(list, ALLOWED, CONTAINER_INHERIT, LIST_AND_READ, NULL, grant->who->sid, grant->who->sid_size);
	}
}

/* schemaIDGUIDs. */
static const struct { const char *name; uint8_t object[GUID_SIZE]; } deniable[] = {
	{ "adminCount", { 0x18, 0x79, 0x96, 0xbf, 0xe6, 0x0d, 0xd0, 0x11, 0xa2, 0x85, 0x00, 0xaa, 0x00, 0x30, 0x49, 0xe2 } },
	{ "msDS-ResultantPSO", { 0x93, 0xa0, 0x7e, 0xb7, 0xd0, 0x88, 0x80, 0x47, 0x9a, 0x98, 0x91, 0x1f, 0x8e, 0x8b, 0x1d, 0xca } },
};

static const uint8_t *deniable_guid(const struct attribute_row *row)
{
	for (size_t i = 0; i < sizeof deniable / sizeof deniable[0]; i++)
		if (!strcmp(deniable[i].name, row->name))
			return deniable[i].object;
	return NULL;
}

bool descriptor_hides(const struct attribute_row *row)
{
	return deniable_guid(row) != NULL;
}

/* An ordinary user's, in canonical order: the schema's default, then what the OU hands down. */
static void fill_ordinary(struct list *list, struct forest *forest, const struct object *object)
{
	if (object->cannot_change) {
		ADD(list, DENIED_OBJECT, 0, CONTROL_ACCESS, change_password, everyone);
		ADD(list, DENIED_OBJECT, 0, CONTROL_ACCESS, change_password, self);
	}
	if (object->hidden)
		ADD(list, DENIED_OBJECT, 0, READ_PROPERTY, deniable_guid(object->hidden), everyone);
	add_group(list, forest, "Domain Admins", 0, FULL_CONTROL);
	add_group(list, forest, "Account Operators", 0, FULL_CONTROL);
	if (object->account && !object->cannot_change) {
		ADD(list, ALLOWED_OBJECT, 0, CONTROL_ACCESS, change_password, self);
		ADD(list, ALLOWED_OBJECT, 0, CONTROL_ACCESS, change_password, everyone);
	}
	if (!object->sealed)
		ADD(list, ALLOWED, 0, READ_CONTROL, NULL, authenticated);
	ADD(list, ALLOWED_OBJECT, 0, READ_PROPERTY, general_information, authenticated);
	ADD(list, ALLOWED_OBJECT, 0, READ_PROPERTY, public_information, authenticated);
	add_grants(list, forest, object);
	if (!object->sealed)
		ADD(list, ALLOWED, INHERITED, READ_ALL, NULL, compatible);
	add_group(list, forest, "Enterprise Admins", INHERITED, FULL_CONTROL);
	ADD(list, ALLOWED, INHERITED, FULL_CONTROL, NULL, administrators);
}

/* AdminSDHolder's: nothing is inherited. */
static void fill_protected(struct list *list, struct forest *forest)
{
	add_group(list, forest, "Domain Admins", 0, FULL_CONTROL);
	add_group(list, forest, "Enterprise Admins", 0, FULL_CONTROL);
	ADD(list, ALLOWED, 0, FULL_CONTROL, NULL, administrators);
	ADD(list, ALLOWED_OBJECT, 0, CONTROL_ACCESS, change_password, self);
	ADD(list, ALLOWED_OBJECT, 0, CONTROL_ACCESS, change_password, everyone);
	ADD(list, ALLOWED, 0, READ_ALL, NULL, authenticated);
}

void descriptor_put(struct forest *forest, struct object *who, struct object *object, unsigned parts, struct values *out)
{
	bool administrator = forest_is_administrator(forest, who);
	struct list list = { .size = 0 };
	if (!administrator && (!who || (parts & AUDIT_PART) || object->sealed || (object->class == CLASS_PSO && !forest_may_read_policy(forest, who, object))))
		return;
	if (object->admin)
		fill_protected(&list, forest);
	else
		fill_ordinary(&list, forest, object);
	const struct object *owner = forest_group(forest, "Domain Admins");
	bool has_owner = owner && (parts & OWNER_PART), has_list = parts & LIST_PART;
	size_t owner_size = has_owner ? owner->sid_size : 0, size = 20 + owner_size + (has_list ? 8 + list.size : 0);
	uint8_t *octets = arena_take(out->arena, size), *at = octets + 20 + owner_size;
	memset(octets, 0, size);
	octets[0] = 1;
	put(octets + 2, 0x8000 | (has_list ? 0x4 : 0) | (has_list && object->admin ? 0x1000 : 0), 2);
	if (has_owner) {
		put(octets + 4, 20, 4);
		memcpy(octets + 20, owner->sid, owner_size);
	}
	if (has_list) {
		put(octets + 16, 20 + owner_size, 4);
		at[0] = 4;
		put(at + 2, 8 + list.size, 2);
		put(at + 4, list.count, 2);
		memcpy(at + 8, list.octets, list.size);
	}
	values_add(out, octets, size);
}
