/* ldap_filter: values inside LDAP search filters and GUID names. Pure. */
#ifndef AGENT_DIRECTORY_LDAP_FILTER_H
#define AGENT_DIRECTORY_LDAP_FILTER_H

#include "base/bytes.h"

/* A value for a filter, RFC 4515 section 3: every octet that is not a letter or a digit becomes \hh. malloc'ed; NULL when memory is out. */
char *ldap_filter_escape(struct bytes value);
/* "<GUID=…>" with the 32 hexadecimal digits of the raw octets: a name for base searches and modifies that survives a rename (MS-ADTS 3.1.1.3.1.2.4). */
#define GUID_NAME_SIZE 40
void ldap_guid_name(const uint8_t guid[16], char out[GUID_NAME_SIZE]);

#endif
