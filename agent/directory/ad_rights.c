#include "agent/directory/ad_rights.h"

#include <stdio.h>
#include <string.h>

#include "agent/directory/security_descriptor.h"

/* A token may be large, never endless: Windows itself ends at 1015 groups. */
enum { TOKEN_MAX = 4096 };

/* A GUID as it lies in the octets (MS-DTYP 2.3.4.2). */
#define LITTLE4(n) (n) & 0xff, (n) >> 8 & 0xff, (n) >> 16 & 0xff, (n) >> 24 & 0xff
#define LITTLE2(n) (n) & 0xff, (n) >> 8 & 0xff
#define BIG(n, octets) (uint64_t)(n) >> (octets - 1) * 8 & 0xff
#define GUID(a, b, c, d, e) { LITTLE4(a), LITTLE2(b), LITTLE2(c), BIG(d, 2), BIG(d, 1), BIG(e, 6), BIG(e, 5), BIG(e, 4), BIG(e, 3), BIG(e, 2), BIG(e, 1) }

/* Property sets, MS-ADTS 5.1.3.2.1 and the schema's attributeSecurityGUID. */
static const uint8_t GENERAL[16] = GUID(0x59ba2f42, 0x79a2, 0x11d0, 0x9020, 0x00c04fc2d3cf), PUBLIC[16] = GUID(0xe48d0154, 0xbcf8, 0x11d1, 0x8702, 0x00c04fb96050),
	RESTRICTIONS[16] = GUID(0x4c164200, 0x20c0, 0x11d0, 0xa768, 0x00aa006e0529), MEMBERSHIP[16] = GUID(0x037088f8, 0x0ae1, 0x11d2, 0xb422, 0x00a0c968f939);
static const uint8_t CLASS_PASSWORD_SETTINGS[16] = GUID(0x3bcd9db8, 0xf84b, 0x451c, 0x952f, 0x6c52b81f9ec6);

/* What is asked of the user's own descriptor. */
static const struct question {
	enum directory_right right;
	uint32_t access;
	uint8_t object[16];
	const uint8_t *set;
	const char *attribute;     /* that allowedAttributesEffective must name, too */
} QUESTIONS[] = {
	{ RIGHT_RESET_PASSWORD, ACCESS_CONTROL, GUID(0x00299570, 0x246d, 0x11d0, 0xa768, 0x00aa006e0529), NULL, NULL },
	{ RIGHT_CHANGE_PASSWORD, ACCESS_CONTROL, GUID(0xab721a53, 0x1e2f, 0x11d0, 0x9819, 0x00aa0040529b), NULL, NULL },
	{ RIGHT_WRITE_LOCKOUT_TIME, ACCESS_WRITE_PROPERTY, GUID(0x28630ebf, 0x41d5, 0x11d1, 0xa9c1, 0x0000f80367c1), NULL, "lockoutTime" },
	{ RIGHT_WRITE_PWD_LAST_SET, ACCESS_WRITE_PROPERTY, GUID(0xbf967a0a, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), RESTRICTIONS, "pwdLastSet" },
};
static const uint8_t UNEXPIRE_PASSWORD[16] = GUID(0xccc2dc7d, 0xa6ad, 0x4a7a, 0x8846, 0xc04e3cc53501);

/* What the agent reads of a user. An attribute that may not be read looks like one that is not there: of these that would be a wrong judgement. */
static const struct readable { const char *name; uint8_t object[16]; const uint8_t *set; } READ[] = {
	{ "objectClass", GUID(0xbf9679e5, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), PUBLIC },
	{ "objectGUID", GUID(0xbf9679e7, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), PUBLIC },
	{ "objectSid", GUID(0xbf9679e8, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), GENERAL },
	{ "sAMAccountName", GUID(0x3e0abfd0, 0x126a, 0x11d0, 0xa060, 0x00aa006c33ed), GENERAL },
	{ "userPrincipalName", GUID(0x28630ebb, 0x41d5, 0x11d1, 0xa9c1, 0x0000f80367c1), PUBLIC },
	{ "displayName", GUID(0xbf967953, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), GENERAL },
	{ "userAccountControl", GUID(0xbf967a68, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), RESTRICTIONS },
	{ "msDS-User-Account-Control-Computed", GUID(0x2cc4b836, 0xb63f, 0x4940, 0x8d23, 0xea7acf06af56), RESTRICTIONS },
	{ "accountExpires", GUID(0xbf967915, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), RESTRICTIONS },
	{ "pwdLastSet", GUID(0xbf967a0a, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), RESTRICTIONS },
	{ "lockoutTime", GUID(0x28630ebf, 0x41d5, 0x11d1, 0xa9c1, 0x0000f80367c1), NULL },
	{ "adminCount", GUID(0xbf967918, 0x0de6, 0x11d0, 0xa285, 0x00aa003049e2), NULL },
	{ "servicePrincipalName", GUID(0xf3a64788, 0x5306, 0x11d1, 0xa9c5, 0x0000f80367c1), PUBLIC },
	{ "isCriticalSystemObject", GUID(0x00fbf30d, 0x91fe, 0x11d1, 0xaebc, 0x0000f80367c1), NULL },
	{ "tokenGroups", GUID(0xb7c69e6d, 0x2cc7, 0x11d2, 0x854e, 0x00a0c983f608), MEMBERSHIP },
	{ "msDS-ResultantPSO", GUID(0xb77ea093, 0x88d0, 0x4780, 0x9a98, 0x911f8e8b1dca), NULL },
	{ "replPropertyMetaData", GUID(0x281416c0, 0x1968, 0x11d0, 0xa28f, 0x00aa003049e2), NULL },
};

static bool read_descriptor(const struct entry *entry, struct security_descriptor *ret_descriptor)
{
	const struct berval *values = entry_values(entry, "nTSecurityDescriptor");
	return values != NULL && security_descriptor_read(bytes_of(values[0].bv_val, values[0].bv_len), ret_descriptor) == STATUS_OK;
}

bool ad_rights_cannot_change(const struct entry *entry, const struct sid *user, bool *ret_known)
{
	struct security_descriptor descriptor;
	*ret_known = user->size > 0 && read_descriptor(entry, &descriptor);
	return *ret_known && security_descriptor_forbids_change(&descriptor, user);
}

void ad_rights_token(const struct entry *entry, struct token *ret_token)
{
	static const char *const ALWAYS[] = { "S-1-1-0", "S-1-5-11" };
	const struct berval *values = entry_values(entry, "tokenGroups");
	size_t count = 0;
	*ret_token = (struct token){ 0 };
	while (values != NULL && values[count].bv_val != NULL && count < TOKEN_MAX) {
		count++;
	}
	ret_token->sids = count > 0 ? calloc(count + 1 + sizeof ALWAYS / sizeof ALWAYS[0], sizeof *ret_token->sids) : NULL;
	for (size_t i = 0; i < count && ret_token->sids != NULL; i++) {
		if (sid_from_octets(bytes_of(values[i].bv_val, values[i].bv_len), &ret_token->sids[ret_token->count]) == STATUS_OK) {
			ret_token->count++;
		}
	}
	struct sid self;
	if (ret_token->sids != NULL && entry_sid(entry, "objectSid", &self)) {
		ret_token->sids[ret_token->count++] = self;
	}
	for (size_t i = 0; i < sizeof ALWAYS / sizeof ALWAYS[0] && ret_token->sids != NULL; i++) {
		if (sid_parse(ALWAYS[i], &ret_token->sids[ret_token->count]) == STATUS_OK) {
			ret_token->count++;
		}
	}
}

static enum right_answer ask(const struct security_descriptor *descriptor, const struct access_token *token, const struct access_wanted *wanted)
{
	return security_descriptor_check(descriptor, token, wanted) == ACCESS_GRANTED ? RIGHT_YES : RIGHT_NO;
}

static void ask_reading(const struct security_descriptor *descriptor, const struct access_token *token, struct directory_rights *rights)
{
	size_t used = 0;
	rights->answers[RIGHT_READ_USER] = RIGHT_YES;
	rights->unreadable[0] = '\0';
	for (size_t i = 0; i < sizeof READ / sizeof READ[0]; i++) {
		struct access_wanted wanted = { .right = ACCESS_READ_PROPERTY, .object = READ[i].object, .set = READ[i].set };
		if (ask(descriptor, token, &wanted) == RIGHT_NO) {
			rights->answers[RIGHT_READ_USER] = RIGHT_NO;
			used += (size_t)snprintf(rights->unreadable + used, sizeof rights->unreadable - used, "%s%s", used > 0 ? " " : "", READ[i].name);
		}
	}
}
_Static_assert(sizeof((struct directory_rights *)0)->unreadable >= sizeof READ / sizeof READ[0] * 36, "all the names fit");

bool ad_rights_hide(const struct entry *entry, const struct token *token, const char *attribute)
{
	struct security_descriptor descriptor;
	struct sid self = { 0 };
	if (entry_has(entry, attribute) || token == NULL || token->count == 0 || !read_descriptor(entry, &descriptor)) {
		return false;
	}
	struct access_token requester = { token->sids, token->count, entry_sid(entry, "objectSid", &self) ? &self : NULL };
	for (size_t i = 0; i < sizeof READ / sizeof READ[0]; i++) {
		struct access_wanted wanted = { .right = ACCESS_READ_PROPERTY, .object = READ[i].object, .set = READ[i].set };
		if (strcmp(READ[i].name, attribute) == 0) {
			return ask(&descriptor, &requester, &wanted) == RIGHT_NO;
		}
	}
	return false;
}

/* The server's own word on what may be written; it counts where the two differ. */
static void cross_check(const struct entry *entry, const struct question *question, struct directory_rights *rights)
{
	if (question->attribute == NULL || !entry_has(entry, "allowedAttributesEffective")) {
		return;
	}
	enum right_answer told = entry_has_value(entry, "allowedAttributesEffective", question->attribute) ? RIGHT_YES : RIGHT_NO;
	rights->contradicted[question->right] = rights->answers[question->right] != RIGHT_UNKNOWN && rights->answers[question->right] != told;
	rights->answers[question->right] = told;
}

static void read_user_rights(const struct entry *entry, const struct token *token, struct directory_rights *rights)
{
	struct security_descriptor descriptor;
	struct sid self = { 0 };
	bool has_self = entry_sid(entry, "objectSid", &self);
	struct access_token requester = { token->sids, token->count, has_self ? &self : NULL };
	bool known = token->count > 0 && read_descriptor(entry, &descriptor);
	for (size_t i = 0; i < sizeof QUESTIONS / sizeof QUESTIONS[0]; i++) {
		struct access_wanted wanted = { .right = QUESTIONS[i].access, .object = QUESTIONS[i].object, .set = QUESTIONS[i].set };
		rights->answers[QUESTIONS[i].right] = known ? ask(&descriptor, &requester, &wanted) : RIGHT_UNKNOWN;
		cross_check(entry, &QUESTIONS[i], rights);
	}
	if (known) {
		ask_reading(&descriptor, &requester, rights);
	}
}

static void read_domain_rights(const struct entry *entry, const struct token *token, struct directory_rights *rights)
{
	struct security_descriptor descriptor;
	struct access_token requester = { token->sids, token->count, NULL };
	struct access_wanted wanted = { .right = ACCESS_CONTROL, .object = UNEXPIRE_PASSWORD };
	bool known = token->count > 0 && read_descriptor(entry, &descriptor);
	rights->answers[RIGHT_UNEXPIRE_PASSWORD] = known ? ask(&descriptor, &requester, &wanted) : RIGHT_UNKNOWN;
}

/* The container of the Password Settings objects. It shows ordinary accounts nothing, not even its class: that is a "no". */
static void read_container_rights(const struct entry *entry, const struct token *token, struct directory_rights *rights)
{
	struct security_descriptor descriptor;
	struct access_token requester = { token->sids, token->count, NULL };
	struct access_wanted wanted = { .right = ACCESS_READ_PROPERTY, .child_class = CLASS_PASSWORD_SETTINGS };
	bool known = token->count > 0 && read_descriptor(entry, &descriptor);
	if (known) {
		rights->answers[RIGHT_READ_POLICIES] = ask(&descriptor, &requester, &wanted);
	} else if (!entry_has(entry, "objectClass")) {
		rights->answers[RIGHT_READ_POLICIES] = RIGHT_NO;
	}
}

void ad_rights_read(enum rights_entry of, const struct entry *entry, const struct token *token, struct directory_rights *rights)
{
	static void (*const READERS[])(const struct entry *, const struct token *, struct directory_rights *) = {
		[RIGHTS_OF_USER] = read_user_rights, [RIGHTS_OF_DOMAIN] = read_domain_rights, [RIGHTS_OF_POLICIES] = read_container_rights,
	};
	READERS[of](entry, token, rights);
}
