{{/* The pod, whether a StatefulSet or a Deployment keeps it. */}}
{{- define "multiend.pod" -}}
metadata:
  labels:
    {{- include "multiend.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    # A change of the configuration restarts the pods.
    checksum/config: {{ include "multiend.config" . | sha256sum }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "multiend.serviceAccount" . }}
  {{- include "multiend.podSecurity" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if .Values.topologySpreadConstraints }}
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{ include "multiend.selector" . | nindent 10 }}
    {{- end }}
  {{- if eq .Values.database.type "sqlite" }}
  initContainers:
    - name: migrate
      args: [migrate]
      {{- include "multiend.container" . | nindent 6 }}
  {{- end }}
  containers:
    - name: multiend
      args: [serve]
      {{- include "multiend.container" . | nindent 6 }}
      ports:
        - name: http
          containerPort: 9614
      # It starts within seconds, unless the database has to be waited for.
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        failureThreshold: 60
      # Alive only. A restart would mend nothing of what /readyz reports.
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
  volumes:
    {{- include "multiend.volumes" (dict "root" . "config" (include "multiend.fullname" .)) | nindent 4 }}
    {{- if not .Values.persistence.enabled }}
    - name: data
      emptyDir: {sizeLimit: 64Mi}
    {{- end }}
{{- end -}}

{{/* Nobody's rights. The numbers are those of the image. */}}
{{- define "multiend.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What every container of ours is. */}}
{{- define "multiend.container" -}}
image: {{ include "multiend.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: MULTIEND_CONFIG
    value: /etc/multiend/multiend.toml
  {{- with .Values.component.perPodDomain }}
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: MULTIEND_COMPONENT__NAME
    value: $(POD_NAME).{{ . }}
  {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{ toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/multiend, readOnly: true}
  - {name: secrets, mountPath: /run/secrets/multiend, readOnly: true}
  - {name: data, mountPath: /var/lib/multiend}
  - {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* The volumes but `data`; `config` is the ConfigMap. */}}
{{- define "multiend.volumes" -}}
- name: config
  configMap: {name: {{ .config }}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .root.Values.component.existingSecret }}
          items: [{key: {{ .root.Values.component.secretKey | quote }}, path: component-secret}]
      {{- if eq .root.Values.database.type "postgres" }}
      - secret:
          name: {{ .root.Values.database.existingSecret }}
          items: [{key: {{ .root.Values.database.urlKey | quote }}, path: database-url}]
      {{- end }}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- end -}}
