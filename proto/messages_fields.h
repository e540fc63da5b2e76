/* messages_fields: a message is a table of members; one table parses, builds and clears it. Shared by the files of proto/messages only. */
#ifndef PROTO_MESSAGES_FIELDS_H
#define PROTO_MESSAGES_FIELDS_H

#include "proto/messages.h"

struct field;

/* How one kind of member is read and written; `object` is the whole struct, so that a member may fill several of its fields. */
struct field_type {
	/* STATUS_LOCAL_INPUT where the value is not of this type. */
	enum status (*parse)(const struct field *field, const json_t *value, void *object);
	/* False where memory is out or the value cannot be said; *ret_value stays NULL where the member is absent. */
	bool (*build)(const struct field *field, const void *object, json_t **ret_value);
	void (*clear)(const struct field *field, void *object); /* NULL: owns nothing */
};

struct field {
	const char *name;
	const struct field_type *type;
	size_t offset;
	int64_t min, max;  /* text: bytes; numbers: value; booleans: min is the default */
	bool optional;
};
#define FIELD_AT(field, object, type) ((type *)(void *)((char *)(object) + (field)->offset))
#define FIELD_CONST(field, object, type) ((const type *)(const void *)((const char *)(object) + (field)->offset))

struct form {
	const struct field *fields;
	size_t count;
	enum status malformed;
	bool closed;       /* refuses members that no row names */
	const char *whole; /* what *ret_member says where the text is no JSON object; NULL: "" */
};
#define FORM_FIELDS(array) (array), sizeof(array) / sizeof(*(array))

#define MAX_TIME RESULT_TIME_MAX
#define MAX_INTEGER 9007199254740991 /* what every JSON implementation keeps exactly */

extern const struct field_type field_text;       /* char *: min to max bytes, no control characters */
extern const struct field_type field_loose_text; /* char *: for people; cut at max bytes, what cannot be shown is replaced */
extern const struct field_type field_uuid;       /* char[UUID_SIZE]; "" is absent */
extern const struct field_type field_uuid_text;  /* char * */
extern const struct field_type field_random;     /* char *: base64url of 32 bytes: nonces and thumbprints */
extern const struct field_type field_int64;      /* an optional one is absent where 0 */
extern const struct field_type field_int;
extern const struct field_type field_unsigned;
extern const struct field_type field_bool;
extern const struct field_type field_key;        /* struct jose_key *, owned: a published public key; `min` is its enum jose_use */
extern const struct field_type field_account;    /* struct result_account *, owned */
extern const struct field_type field_policy;     /* struct result_policy *, owned */

/* `object` must be zeroed or hold its defaults. On failure it may be half filled: form_clear. */
enum status form_parse_json(const struct form *form, const json_t *json, void *object, const char **ret_member) MUST_USE;
/* The same from text, cleared on failure. */
enum status form_parse(const struct form *form, struct bytes payload, void *object, const char **ret_member) MUST_USE;
json_t *form_json(const struct form *form, const void *object);
char *form_build(const struct form *form, const void *object);
/* Frees what the members own; the caller zeroes the struct. */
void form_clear(const struct form *form, void *object);

/* A published key has all seven members, which jose_key_from_jwk would take or leave. */
enum status field_published_key(const json_t *jwk, enum jose_use use, struct jose_key **ret_key) MUST_USE;
/* Bytes between min and max and no control characters. */
bool field_is_plain(const json_t *value, int64_t min, int64_t max);
/* Sets *to, freeing what it held. */
enum status field_set_text(char **to, const char *text) MUST_USE;

#endif
