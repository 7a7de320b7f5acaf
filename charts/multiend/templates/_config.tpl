{{/* The whole configuration as TOML: what the values say, and what the chart decides. */}}
{{- define "multiend.config" -}}
{{- $ours := dict
    "data_dir" "/var/lib/multiend"
    "component" (dict "secret_file" "/run/secrets/multiend/component-secret")
    "http" (dict "listen" "0.0.0.0:9614")
-}}
{{- if eq .Values.database.type "postgres" }}{{ $_ := set $ours "database_file" "/run/secrets/multiend/database-url" }}{{ end -}}
{{- include "multiend.toml" (dict "table" (mergeOverwrite (deepCopy .Values.config) $ours) "name" "") -}}
{{- end -}}

{{/* One table and those below it. `name` is empty, or ends in a dot. */}}
{{- define "multiend.toml" -}}
{{- range $key, $value := .table }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ include "multiend.tomlValue" $value }}
{{- end }}
{{- end }}
{{- $name := .name }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}

[{{ $name }}{{ $key }}]
{{- include "multiend.toml" (dict "table" $value "name" (printf "%s%s." $name $key)) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Numbers come as floating point from YAML; there is no key that takes a fraction. */}}
{{- define "multiend.tomlValue" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}
